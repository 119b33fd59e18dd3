// What a line of output looks like: colours and attributes of SGR, overwriting by CR, and everything that could mislead
// a reader as a name in a box. Pure. The result is text and class names only.

/** @typedef {{text: string, cls: string, title?: string}} Span A span with a title is a name in a box. */
/** @typedef {{fg: string, bg: string, bold: boolean, dim: boolean, italic: boolean, under: boolean, strike: boolean, inverse: boolean}} Pen */
/** @typedef {Span & {move?: "start" | "left", erase?: number}} Token */

/** @type {Pen} */
export const PLAIN = { fg: "", bg: "", bold: false, dim: false, italic: false, under: false, strike: false, inverse: false };

/** Longest escape sequence that is read as one; after that its text is shown. */
const LONGEST = 4096;

/** Most combining marks on one letter. */
const MARKS = 4;

/** Most spans of a line: a flood of controls is not a flood of elements. */
const MOST = 1000;

// What needs a look: controls, format characters that hide or turn text, and floods of marks.
const SPECIAL = new RegExp(
  `[\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f\\u00ad\\u061c\\u115f\\u1160\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufeff\\uffa0\\ufff9-\\ufffb\\u{e0000}-\\u{e007f}]|\\p{M}{${MARKS + 1},}`,
  "gu",
);

const C0 = "NUL SOH STX ETX EOT ENQ ACK BEL BS HT LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US".split(" ");

/** @type {Record<number, string>} */
const NAMES = {
  0x7f: "DEL", 0x85: "NEL", 0x90: "DCS", 0x9b: "CSI", 0x9d: "OSC", 0xad: "SHY", 0x61c: "ALM", 0x200b: "ZWSP", 0x200c: "ZWNJ",
  0x200d: "ZWJ", 0x200e: "LRM", 0x200f: "RLM", 0x2028: "LS", 0x2029: "PS", 0x202a: "LRE", 0x202b: "RLE", 0x202c: "PDF",
  0x202d: "LRO", 0x202e: "RLO", 0x2060: "WJ", 0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0xfeff: "BOM",
};

/** @param {number} code */
const codePoint = (code) => `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;

/** @param {number} code */
export const nameOf = (code) => (code < 32 ? C0[code] : NAMES[code]) ?? codePoint(code);

/** @param {string} text @param {string} title @returns {Token} */
const box = (text, title) => ({ text, cls: "ctl", title });

/**
 * One line, or a part of one.
 *
 * @param {string} text
 * @param {Pen} [start] how the part before it ended
 * @returns {{spans: Span[], pen: Pen}}
 */
export function parse(text, start = PLAIN) {
  const body = text.endsWith("\r") ? text.slice(0, -1) : text;
  let pen = start;
  let cls = classOf(pen);
  /** @type {Token[]} */
  const tokens = [];
  let moved = false;
  let from = 0;
  SPECIAL.lastIndex = 0;
  for (let found = SPECIAL.exec(body); found; found = SPECIAL.exec(body)) {
    if (found.index > from) tokens.push({ text: body.slice(from, found.index), cls });
    from = SPECIAL.lastIndex;
    const code = /** @type {number} */ (found[0].codePointAt(0));
    if (code === 0x1b) {
      const escape = readEscape(body, found.index);
      from = SPECIAL.lastIndex = escape.end;
      if (escape.sgr !== null) {
        pen = colour(pen, escape.sgr);
        cls = classOf(pen);
      } else if (escape.erase !== null) {
        moved = true;
        tokens.push({ text: "", cls, erase: escape.erase });
      } else {
        tokens.push(box(escape.name, escape.title));
      }
    } else if (code === 0x0d || code === 0x08) {
      moved = true;
      tokens.push({ text: "", cls, move: code === 0x0d ? "start" : "left" });
    } else if (/^\p{M}/u.test(found[0])) {
      const marks = [...found[0]];
      tokens.push({ text: marks.slice(0, MARKS).join(""), cls });
      tokens.push(box(`+${marks.length - MARKS}`, `${marks.length - MARKS} more combining marks`));
    } else {
      tokens.push(box(nameOf(code), `${codePoint(code)} ${nameOf(code)}`));
    }
  }
  if (from < body.length) tokens.push({ text: body.slice(from), cls });
  return { spans: bounded(moved ? overwrite(tokens) : join(tokens)), pen };
}

/** What is behind the first spans is plain text. @param {Span[]} spans */
function bounded(spans) {
  if (spans.length <= MOST) return spans;
  const rest = spans.slice(MOST).map(({ text, title }) => (title ? `[${text}]` : text));
  return [...spans.slice(0, MOST), { text: rest.join(""), cls: "" }];
}

/**
 * The escape sequence at `at`: colours, an erasure of the line, or a name for the box.
 *
 * @param {string} text @param {number} at
 * @returns {{end: number, sgr: string | null, erase: number | null, name: string, title: string}}
 */
function readEscape(text, at) {
  const none = { sgr: null, erase: null };
  const next = text[at + 1];
  if (next === "[") {
    const csi = /^[0-?]{0,1024}[ -/]{0,16}[@-~]/.exec(text.slice(at + 2, at + 2 + 1100));
    if (!csi) return { ...none, end: at + 2, name: "CSI", title: "CSI, not complete" };
    const end = at + 2 + csi[0].length;
    const final = csi[0].at(-1);
    const params = csi[0].slice(0, -1);
    if (final === "m" && /^[\d;:]*$/.test(params)) return { ...none, end, sgr: params, name: "", title: "" };
    if (final === "K" && /^[012]?$/.test(params)) return { ...none, end, erase: Number(params), name: "", title: "" };
    return { ...none, end, name: `CSI ${csi[0].slice(0, 12)}`, title: `CSI ${csi[0]}` };
  }
  if (next && "]P_^X".includes(next)) {
    const kind = { "]": "OSC", P: "DCS", _: "APC", "^": "PM", X: "SOS" }[next] ?? "";
    const rest = text.slice(at + 2, at + 2 + LONGEST);
    const closed = /\x07|\x1b\\|\x9c/.exec(rest);
    if (!closed) return { ...none, end: at + 2, name: kind, title: `${kind}, not complete` };
    const data = rest.slice(0, closed.index);
    const number = kind === "OSC" ? ` ${/^\d*/.exec(data)?.[0] ?? ""}` : "";
    return { ...none, end: at + 2 + closed.index + closed[0].length, name: (kind + number).trimEnd(), title: `${kind} ${data.slice(0, 200)}` };
  }
  const short = /^[ -/]{0,4}[0-~]/.exec(text.slice(at + 1, at + 6));
  if (short) return { ...none, end: at + 1 + short[0].length, name: `ESC ${short[0]}`, title: `ESC ${short[0]}` };
  return { ...none, end: at + 1, name: "ESC", title: "U+001B ESC" };
}

/** @param {Token[]} tokens @returns {Span[]} */
function join(tokens) {
  /** @type {Span[]} */
  const spans = [];
  let same = 1;
  for (const token of tokens) {
    const last = spans.at(-1);
    if (last?.title && last.title === token.title) {
      same += 1;
      last.text = `${token.text} ×${same}`;
      continue;
    }
    same = 1;
    if (last && last.cls === token.cls && !last.title && !token.title) last.text += token.text;
    else if (token.text !== "") spans.push(token.title ? { text: token.text, cls: token.cls, title: token.title } : { text: token.text, cls: token.cls });
  }
  return spans;
}

/** What is left when the cursor went back and wrote over it. @param {Token[]} tokens */
function overwrite(tokens) {
  /** @type {Token[]} */
  const cells = [];
  const blank = { text: " ", cls: "" };
  let at = 0;
  /** @param {Token} cell */
  const put = (cell) => {
    while (cells.length < at) cells.push(blank);
    cells[at] = cell;
    at += 1;
  };
  for (const token of tokens) {
    if (token.move) at = token.move === "start" ? 0 : Math.max(0, at - 1);
    else if (token.erase === 0) cells.length = Math.min(cells.length, at);
    else if (token.erase === 2) cells.length = 0;
    else if (token.erase === 1) cells.fill(blank, 0, Math.min(at + 1, cells.length));
    else if (token.title) put(token);
    else for (const text of token.text) put({ text, cls: token.cls });
  }
  return join(cells);
}

/** @param {Pen} pen */
function classOf(pen) {
  const list = [];
  if (pen.inverse) list.push("inv");
  else {
    if (pen.fg) list.push(pen.fg);
    if (pen.bg) list.push(pen.bg);
  }
  if (pen.bold) list.push("cb");
  if (pen.dim) list.push("cd");
  if (pen.italic) list.push("ci");
  if (pen.under) list.push("cu");
  if (pen.strike) list.push("cs");
  return list.join(" ");
}

/** @param {Pen} pen @param {string} params @returns {Pen} */
function colour(pen, params) {
  let now = { ...pen };
  const codes = params.split(";", 64);
  for (let i = 0; i < codes.length; i += 1) {
    const sub = codes[i].split(":");
    const code = Number(sub[0]);
    if (code === 0) now = { ...PLAIN };
    else if (code === 1) now.bold = true;
    else if (code === 2) now.dim = true;
    else if (code === 3) now.italic = true;
    else if (code === 4 || code === 21) now.under = sub[1] !== "0";
    else if (code === 7) now.inverse = true;
    else if (code === 9) now.strike = true;
    else if (code === 22) now.bold = now.dim = false;
    else if (code === 23) now.italic = false;
    else if (code === 24) now.under = false;
    else if (code === 27) now.inverse = false;
    else if (code === 29) now.strike = false;
    else if ((code >= 30 && code <= 37) || (code >= 90 && code <= 97)) now.fg = basic(code % 10 + (code >= 90 ? 8 : 0), "c");
    else if ((code >= 40 && code <= 47) || (code >= 100 && code <= 107)) now.bg = basic(code % 10 + (code >= 100 ? 8 : 0), "g");
    else if (code === 39) now.fg = "";
    else if (code === 49) now.bg = "";
    else if (code === 38 || code === 48) {
      const found = extended(sub.length > 1 ? sub.slice(1) : codes.slice(i + 1), sub.length > 1);
      if (sub.length === 1) i += found.used;
      const kind = code === 38 ? "c" : "g";
      if (found.index !== null) {
        if (kind === "c") now.fg = palette(found.index, kind);
        else now.bg = palette(found.index, kind);
      } else if (found.rgb) {
        if (kind === "c") now.fg = nearest(found.rgb, kind);
        else now.bg = nearest(found.rgb, kind);
      }
    }
  }
  return now;
}

/** @param {string[]} args @param {boolean} colons @returns {{used: number, index: number | null, rgb: [number, number, number] | null}} */
function extended(args, colons) {
  const byte = (/** @type {string | undefined} */ text) => Math.min(255, Number(text) || 0);
  if (args[0] === "5") return { used: 2, index: byte(args[1]), rgb: null };
  if (args[0] !== "2") return { used: 0, index: null, rgb: null };
  // With colons there may be a colour space before the three.
  const three = colons && args.length >= 5 ? args.slice(2, 5) : args.slice(1, 4);
  return { used: 4, index: null, rgb: [byte(three[0]), byte(three[1]), byte(three[2])] };
}

/** The sixteen. As text, black and white are inks; the rest are the tokens that are AA on every ground. @param {number} n @param {"c" | "g"} kind */
function basic(n, kind) {
  const hue = n % 8;
  if (kind === "g") return hue === 0 ? "" : hue === 7 ? "g8" : `g${hue}`;
  if (n === 0 || n === 8) return "cd";
  if (hue === 7) return n === 15 ? "" : "c8";
  return `c${hue}`;
}

/** @param {number} n @param {"c" | "g"} kind */
function palette(n, kind) {
  if (n < 16) return basic(n, kind);
  if (n >= 232) {
    const grey = 8 + (n - 232) * 10;
    return nearest([grey, grey, grey], kind);
  }
  const level = (/** @type {number} */ v) => (v === 0 ? 0 : 55 + v * 40);
  const cube = n - 16;
  return nearest([level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6)], kind);
}

/** Hues that have no ground of their own. @type {Record<number, number>} */
const GROUNDS = { 7: 3, 9: 5, 10: 2, 11: 4 };

/** The class of the nearest hue: a colour of the command is readable in both themes. @param {[number, number, number]} rgb @param {"c" | "g"} kind */
function nearest([r, g, b], kind) {
  const most = Math.max(r, g, b);
  const least = Math.min(r, g, b);
  const span = most - least;
  if (span < 32) {
    if (kind === "g") return most < 64 ? "" : "g8";
    return most < 110 ? "cd" : most < 200 ? "c8" : "";
  }
  const turn = most === r ? ((g - b) / span + 6) % 6 : most === g ? (b - r) / span + 2 : (r - g) / span + 4;
  const hue = turn * 60;
  const n =
    hue < 15 || hue >= 345 ? 1
    : hue < 38 ? 7
    : hue < 62 ? 3
    : hue < 85 ? 10
    : hue < 160 ? 2
    : hue < 195 ? 6
    : hue < 215 ? 11
    : hue < 250 ? 4
    : hue < 290 ? 5
    : 9;
  return `${kind}${kind === "g" ? GROUNDS[n] ?? n : n}`;
}
