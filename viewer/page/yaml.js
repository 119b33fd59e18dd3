// Tasks as YAML, written and read. Pure. What is read is the part of YAML that Tasks are written in: no anchors, tags
// or several documents; a line that is something else is named.

/** @typedef {{indent: number, key: string, value: string, path: string}} YamlLine `key` with its `- `, without its colon. */

const PLAIN = /^[\w/.][\w./@%+=:~-]*(?: [\w./@%+=~-]+)*$/;
/** Readers take these for numbers or times. */
const NUMERIC = /^[-+.\d][\d_.:a-fox+-]*$/i;
const RESERVED = /^(?:true|false|null|yes|no|on|off|y|n|~|\.(?:inf|nan))$/i;

/** @param {string} text @param {boolean} flow */
function string(text, flow) {
  const plain = PLAIN.test(text) && !NUMERIC.test(text) && !RESERVED.test(text) && !text.endsWith(":") && !/: | #/.test(text) && !(flow && /[,[\]{}]/.test(text));
  return plain ? text : quoted(text);
}

/** With what JSON leaves as it is and YAML reads as the end of a line. @param {string} text */
function quoted(text) {
  return JSON.stringify(text).replace(/[\x7f-\x9f\u2028\u2029\ufeff]/g, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** @param {unknown} value */
const isScalar = (value) => value === null || typeof value !== "object";

/** @param {unknown} value @param {boolean} flow */
function scalar(value, flow) {
  return typeof value === "string" ? string(value, flow) : JSON.stringify(value ?? null);
}

/** A short list or map on one line. @param {unknown} value @returns {string | null} */
function flow(value) {
  if (isScalar(value)) return scalar(value, true);
  if (Array.isArray(value)) {
    const items = value.map(flow);
    const text = `[${items.join(", ")}]`;
    return items.includes(null) || text.length > 72 || value.some((item) => typeof item === "string" && item.includes("\n")) ? null : text;
  }
  const entries = Object.entries(/** @type {object} */ (value));
  if (entries.length > 3) return null;
  const items = entries.map(([key, item]) => [key, isScalar(item) || Array.isArray(item) ? flow(item) : null]);
  const text = `{${items.map(([key, item]) => `${string(String(key), true)}: ${item}`).join(", ")}}`;
  return items.some(([, item]) => item === null) || text.length > 60 ? null : text;
}

/**
 * The lines, each with the path of its field, so that a problem can be marked where it is.
 *
 * @param {Record<string, unknown>} value
 * @returns {YamlLine[]}
 */
export function lines(value) {
  /** @type {YamlLine[]} */
  const out = [];
  map(value, 0, "", "", out);
  return out;
}

/** @param {Record<string, unknown>} value @param {number} indent @param {string} path @param {string} first @param {YamlLine[]} out */
function map(value, indent, path, first, out) {
  let lead = first;
  for (const [key, item] of Object.entries(value)) {
    if (item === undefined) continue;
    const here = path ? `${path}.${key}` : key;
    entry(lead + string(key, false), item, indent - lead.length, here, indent, out);
    lead = "";
  }
}

/** @param {string} key @param {unknown} item @param {number} at @param {string} path @param {number} indent @param {YamlLine[]} out */
function entry(key, item, at, path, indent, out) {
  /** @param {string} value */
  const put = (value) => out.push({ indent: at, key, value, path });
  if (typeof item === "string" && item.includes("\n") && !/[^\n\x20-\ud7ff\ue000-\ufffd]/.test(item) && !/^\s/.test(item)) {
    const tail = /\n*$/.exec(item)?.[0].length ?? 0;
    put(tail === 0 ? "|-" : tail === 1 ? "|" : "|+");
    const body = tail === 0 ? item : item.slice(0, -1);
    for (const line of body.split("\n")) out.push({ indent: line === "" ? 0 : indent + 2, key: "", value: line, path });
    return;
  }
  const short = isScalar(item) ? scalar(item, false) : indent === 0 && !Array.isArray(item) && Object.keys(/** @type {object} */ (item)).length > 0 ? null : flow(item);
  if (short !== null) return put(short);
  put("");
  if (Array.isArray(item)) list(item, indent, path, out);
  else map(/** @type {Record<string, unknown>} */ (item), indent + 2, path, "", out);
}

/** @param {unknown[]} items @param {number} indent @param {string} path @param {YamlLine[]} out */
function list(items, indent, path, out) {
  items.forEach((item, index) => {
    const here = `${path}[${index}]`;
    const short = typeof item === "string" && item.includes("\n") ? quoted(item) : flow(item);
    if (short !== null) out.push({ indent, key: "", value: `- ${short}`, path: here });
    else if (Array.isArray(item)) out.push({ indent, key: "", value: `- ${JSON.stringify(item)}`, path: here });
    else map(/** @type {Record<string, unknown>} */ (item), indent + 2, here, "- ", out);
  });
}

/** @param {YamlLine} line */
export const lineText = ({ indent, key, value }) => " ".repeat(indent) + (key ? `${key}:${value ? ` ${value}` : ""}` : value);

/** @param {Record<string, unknown>} value */
export const write = (value) => `${lines(value).map(lineText).join("\n")}\n`;

export class YamlError extends Error {
  /** @param {number} line from 1 @param {string} message */
  constructor(line, message) {
    super(`Line ${line}: ${message}`);
    this.line = line;
  }
}

/** @typedef {{number: number, indent: number, text: string}} Source */

/** @param {string} text @returns {unknown} @throws {YamlError} */
export function read(text) {
  return new Reader(text).document();
}

class Reader {
  /** @type {Source[]} */
  #lines;
  #at = 0;

  /** @param {string} text */
  constructor(text) {
    this.#lines = text.split(/\r?\n/).map((line, index) => ({ number: index + 1, indent: /^ */.exec(line)?.[0].length ?? 0, text: line.trim() === "" ? "" : line.replace(/^ */, "") }));
  }

  document() {
    if (this.#next()?.text === "---") this.#at += 1;
    const first = this.#next();
    if (!first) return null;
    const value = this.#block(first.indent);
    const rest = this.#next();
    if (rest) throw new YamlError(rest.number, "this line does not belong to what is above it");
    return value;
  }

  /** The next line that is neither empty nor a comment. @returns {Source | undefined} */
  #next() {
    while (this.#at < this.#lines.length) {
      const line = this.#lines[this.#at];
      if (line.text !== "" && !line.text.startsWith("#")) {
        if (line.text.startsWith("\t")) throw new YamlError(line.number, "indentation is spaces, not tabs");
        return line;
      }
      this.#at += 1;
    }
    return undefined;
  }

  /** @param {number} indent @returns {unknown} */
  #block(indent) {
    const line = /** @type {Source} */ (this.#next());
    if (/^- |^-$/.test(line.text)) return this.#list(indent);
    if (keyOf(line.text)) return this.#map(indent);
    this.#at += 1;
    return this.#value(line.text, line, indent);
  }

  /** @param {number} indent */
  #list(indent) {
    /** @type {unknown[]} */
    const items = [];
    for (let line = this.#next(); line && line.indent === indent && /^- |^-$/.test(line.text); line = this.#next()) {
      const rest = line.text.slice(1);
      const inner = rest.trimStart();
      if (inner === "" || inner.startsWith("#")) {
        this.#at += 1;
        const below = this.#next();
        items.push(below && below.indent > indent ? this.#block(below.indent) : null);
      } else if (keyOf(inner) && !/^[[{"']/.test(inner)) {
        // A map that begins behind the dash goes on below at the column of its first key.
        const column = indent + 1 + rest.length - inner.length;
        this.#lines[this.#at] = { number: line.number, indent: column, text: inner };
        items.push(this.#map(column));
      } else {
        this.#at += 1;
        items.push(this.#value(inner, line, indent));
      }
    }
    return items;
  }

  /** @param {number} indent */
  #map(indent) {
    /** @type {Record<string, unknown>} */
    const map = {};
    for (let line = this.#next(); line && line.indent === indent; line = this.#next()) {
      const found = keyOf(line.text);
      if (!found) throw new YamlError(line.number, "expected a key and a colon");
      if (Object.hasOwn(map, found.key)) throw new YamlError(line.number, `${found.key} is here twice`);
      this.#at += 1;
      let value;
      if (found.rest === "" || found.rest.startsWith("#")) {
        const below = this.#next();
        const nested = below && (below.indent > indent || (below.indent === indent && /^- |^-$/.test(below.text)));
        value = nested ? this.#block(below.indent) : null;
      } else {
        value = this.#value(found.rest, line, indent);
      }
      Object.defineProperty(map, found.key, { value, enumerable: true, configurable: true, writable: true });
    }
    const rest = this.#next();
    if (rest && rest.indent > indent) throw new YamlError(rest.number, "this line is indented too far");
    return map;
  }

  /** @param {string} text @param {Source} line @param {number} indent @returns {unknown} */
  #value(text, line, indent) {
    const blockStyle = /^([|>])([1-9])?([+-])?(?:\s+#.*)?$/.exec(text);
    if (blockStyle) return this.#literal(blockStyle[1] === ">", blockStyle[2] ? indent + Number(blockStyle[2]) : null, blockStyle[3] ?? "", indent);
    if (/^[&*!%@`]/.test(text)) throw new YamlError(line.number, `what begins with ${text[0]} is not read here`);
    if (/^[[{]/.test(text)) {
      let all = text;
      while (!balanced(all)) {
        const more = this.#next();
        if (!more) throw new YamlError(line.number, "a bracket is not closed");
        this.#at += 1;
        all += ` ${more.text}`;
      }
      return flowValue(all, line.number);
    }
    return scalarValue(text, line.number);
  }

  /** @param {boolean} folded @param {number | null} given @param {string} chomp @param {number} parent */
  #literal(folded, given, chomp, parent) {
    /** @type {string[]} */
    const body = [];
    let indent = given;
    for (; this.#at < this.#lines.length; this.#at += 1) {
      const line = this.#lines[this.#at];
      if (line.text === "") {
        body.push("");
        continue;
      }
      if (line.indent <= parent && !(indent !== null && line.indent >= indent)) break;
      indent ??= line.indent;
      if (line.indent < indent) break;
      body.push(" ".repeat(line.indent - indent) + line.text);
    }
    let end = body.length;
    while (end > 0 && body[end - 1] === "") end -= 1;
    const text = folded ? body.slice(0, end).join("\n").replace(/([^\n])\n(\n*)(?=[^\n ])/g, (_, before, more) => before + (more || " ")) : body.slice(0, end).join("\n");
    if (end === 0 || chomp === "-") return text;
    return text + (chomp === "+" ? "\n".repeat(body.length - end + 1) : "\n");
  }
}

/** @param {string} text @returns {{key: string, rest: string} | null} */
function keyOf(text) {
  const quoted = /^("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')\s*:(?:\s+(.*))?$/.exec(text);
  if (quoted) return { key: String(scalarValue(quoted[1], 0)), rest: (quoted[2] ?? "").trim() };
  const plain = /^([^\s"'[\]{},#&*!|>%@`-][^#]*?|-[^\s#][^#]*?)\s*:(?:\s+(.*))?$/.exec(text);
  return plain ? { key: plain[1], rest: (plain[2] ?? "").trim() } : null;
}

/** @param {string} text */
function balanced(text) {
  const bare = text.replace(/"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'/g, "");
  return (bare.match(/[[{]/g)?.length ?? 0) <= (bare.match(/[\]}]/g)?.length ?? 0);
}

/** @param {string} text @param {number} line */
function scalarValue(text, line) {
  if (text.startsWith('"')) {
    const found = /^("(?:[^"\\]|\\.)*")\s*(?:#.*)?$/.exec(text);
    try {
      return JSON.parse(/** @type {RegExpExecArray} */ (found)[1]);
    } catch {
      throw new YamlError(line, "this text in quotes cannot be read");
    }
  }
  if (text.startsWith("'")) {
    const found = /^'((?:[^']|'')*)'\s*(?:#.*)?$/.exec(text);
    if (!found) throw new YamlError(line, "a quote is not closed");
    return found[1].replace(/''/g, "'");
  }
  return plainValue(text.replace(/\s+#.*$/, ""), line);
}

/** @param {string} text @param {number} line */
function plainValue(text, line) {
  if (text === "" || text === "~" || text === "null") return null;
  if (text === "true" || text === "false") return text === "true";
  if (/^-?(?:0|[1-9]\d{0,14})$/.test(text) || /^-?\d+\.\d+$/.test(text)) return Number(text);
  if (/: |:$/.test(text)) throw new YamlError(line, "two colons in one line: put the text in quotes");
  return text;
}

/** @param {string} text @param {number} line */
function flowValue(text, line) {
  let at = 0;
  const space = () => {
    while (text[at] === " ") at += 1;
  };
  /** @returns {unknown} */
  function value() {
    space();
    if (text[at] === "[") return many("]", (/** @type {unknown[]} */ list) => void list.push(value()), []);
    if (text[at] === "{") {
      return many("}", (/** @type {Record<string, unknown>} */ map) => {
        const key = String(atom(true));
        space();
        if (text[at] !== ":") throw new YamlError(line, "expected a colon in {…}");
        at += 1;
        map[key] = value();
      }, /** @type {Record<string, unknown>} */ ({}));
    }
    return atom(false);
  }
  /** @template T @param {string} close @param {(into: T) => void} item @param {T} into @returns {T} */
  function many(close, item, into) {
    at += 1;
    for (space(); text[at] !== close; space()) {
      item(into);
      space();
      if (text[at] === ",") at += 1;
      else if (text[at] !== close) throw new YamlError(line, `expected , or ${close}`);
    }
    at += 1;
    return into;
  }
  /** @param {boolean} key */
  function atom(key) {
    space();
    const quoted = /^(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')/.exec(text.slice(at));
    const found = quoted ?? (key ? /^[^,[\]{}:"']+/ : /^[^,[\]{}"']+/).exec(text.slice(at));
    if (!found) throw new YamlError(line, "expected a value");
    at += found[0].length;
    return quoted ? scalarValue(found[0], line) : plainValue(found[0].trim(), line);
  }
  const found = value();
  space();
  if (at < text.length && text[at] !== "#") throw new YamlError(line, "something follows the closing bracket");
  return found;
}
