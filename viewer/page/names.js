// Many node names in few characters: web-[1-40,43]. Pure.

/** @typedef {{prefix: string, digits: string, suffix: string}} Parts */

/** Around its last number. @param {string} name @returns {Parts | null} */
function parts(name) {
  const found = /^(.*?)(\d+)(\D*)$/s.exec(name);
  return found ? { prefix: found[1], digits: found[2], suffix: found[3] } : null;
}

const natural = new Intl.Collator("en", { numeric: true });

/** `web-2` before `web-10`. @param {string} a @param {string} b */
export const byName = (a, b) => natural.compare(a, b);

/**
 * Names that differ only in their last number become one. Numbers with leading zeros are a range only with others of the
 * same width, so that each name can be told from the whole.
 *
 * @param {Iterable<string>} names
 */
export function fold(names) {
  const sorted = [...new Set(names)].sort(byName);
  /** @type {Map<string, Parts[]>} */
  const groups = new Map();
  const padded = new Set();
  const split = sorted.map((name) => ({ name, found: parts(name) }));
  for (const { found } of split) {
    if (found && found.digits.length > 1 && found.digits[0] === "0") padded.add(`${found.prefix}\n${found.suffix}`);
  }
  for (const { name, found } of split) {
    const plain = found ? `${found.prefix}\n${found.suffix}` : "";
    const key = found ? `${plain}\n${padded.has(plain) ? found.digits.length : ""}` : `\n${name}`;
    const group = groups.get(key) ?? [];
    group.push(found ?? { prefix: name, digits: "", suffix: "" });
    groups.set(key, group);
  }
  return [...groups.values()].map(one).join(", ");
}

/** @param {Parts[]} group */
function one(group) {
  const [{ prefix, suffix, digits }] = group;
  if (group.length === 1) return prefix + digits + suffix;
  /** @type {string[]} */
  const ranges = [];
  for (let from = 0; from < group.length; ) {
    let to = from;
    while (to + 1 < group.length && BigInt(group[to + 1].digits) === BigInt(group[to].digits) + 1n) to += 1;
    ranges.push(from === to ? group[from].digits : `${group[from].digits}-${group[to].digits}`);
    from = to + 1;
  }
  return `${prefix}[${ranges.join(",")}]${suffix}`;
}

/**
 * The names of a folded text, at most `limit`: more would be a typing error or an attack.
 *
 * @param {string} text
 * @returns {string[]}
 */
export function unfold(text, limit = 20_000) {
  /** @type {string[]} */
  const names = [];
  for (const piece of text.match(/(?:[^,[\]\s]|\[[^\]]*\])+/g) ?? []) {
    const found = /^([^[]*)\[([^\]]*)\]([^[\]]*)$/.exec(piece);
    if (!found) {
      names.push(piece);
      continue;
    }
    for (const range of found[2].split(",")) {
      const [from, to = from] = range.trim().split("-");
      if (!/^\d+$/.test(from) || !/^\d+$/.test(to)) continue;
      const width = from[0] === "0" ? from.length : 0;
      for (let n = Number(from); n <= Number(to) && names.length < limit; n += 1) {
        names.push(found[1] + String(n).padStart(width, "0") + found[3]);
      }
    }
  }
  return names.slice(0, limit);
}

/** The beginning that all names share, up to its last `-` or `.`, so that a cell has room for the rest. @param {string[]} names */
export function commonPrefix(names) {
  let prefix = names[0] ?? "";
  for (const name of names) while (!name.startsWith(prefix)) prefix = prefix.slice(0, -1);
  return prefix.slice(0, Math.max(prefix.lastIndexOf("-"), prefix.lastIndexOf(".")) + 1);
}

/** Which of the six marks a node has: the same one everywhere. @param {string} name */
export function mark(name) {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i += 1) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193) >>> 0;
  return `c${6 + (hash % 6)}`;
}

/** A long name cut in its middle: both ends tell nodes apart. @param {string} name */
export function cut(name, length = 40) {
  if (name.length <= length) return name;
  const head = Math.ceil((length - 1) / 2);
  return `${name.slice(0, head)}…${name.slice(name.length - (length - 1 - head))}`;
}

/** Longest name of a Task. */
const MAX_NAME = 253;

/** A name for a Task that is made of another one: the first that no Task has. @param {string} name @param {string} suffix @param {(name: string) => boolean} isTaken */
export function freeName(name, suffix, isTaken) {
  for (let number = 1; ; number++) {
    const end = number === 1 ? `-${suffix}` : `-${suffix}-${number}`;
    const free = `${name.slice(0, MAX_NAME - end.length).replace(/[.-]+$/, "")}${end}`;
    if (!isTaken(free)) return free;
  }
}
