// Folds in output: `::group::` and its like. They are text of the command, so a fold hides nothing that cannot be
// opened, and closed groups say how many lines they hold. Pure.

/** @typedef {import("./types.js").Entry} Entry */
/** @typedef {{title: string, lines: number, ms: number, open: boolean}} Head */
/** @typedef {{entry: Entry, head: Head | null, pinned?: undefined}} RowItem */

/** @typedef {{kind: "open" | "close" | "header", title: string}} Mark */

/** @param {Entry | undefined} entry @returns {Mark | null} */
function markOf(entry) {
  if (!entry || !("text" in entry) || entry.continues) return null;
  const { text } = entry;
  // Nearly every line is none of them.
  if (!/^(?:::|##\[|section_|[-+~]{3} )/.test(text)) return null;
  let found;
  if ((found = /^(?:::group::|##\[group\])(.*)$/.exec(text))) return { kind: "open", title: found[1].trim() };
  if (/^(?:::endgroup::|##\[endgroup\])\s*$/.test(text)) return { kind: "close", title: "" };
  if ((found = /^section_start:\d+:([^\r[]+)(?:\[[^\]]*\])?\r?(?:\x1b\[0K)?(.*)$/s.exec(text))) return { kind: "open", title: (found[2] || found[1]).replace(/\x1b\[[\d;]*m/g, "").trim() };
  if (/^section_end:\d+:/.test(text)) return { kind: "close", title: "" };
  if ((found = /^(?:---|\+\+\+|~~~) (\S.*)$/.exec(text))) return { kind: "header", title: found[1] };
  return null;
}

/** @param {Entry | undefined} entry @param {string} sign */
const startsWith = (entry, sign) => entry !== undefined && "text" in entry && entry.text.startsWith(sign);

/**
 * The rows of entries, without what is in closed groups.
 *
 * @param {Entry[]} entries
 * @param {Set<number>} closed positions of the heads that are closed
 * @returns {RowItem[]}
 */
export function rowsOf(entries, closed) {
  /** @type {Map<number, {title: string, end: number, lines: number}>} */
  const heads = new Map();
  /** @type {Set<number>} */
  const ends = new Set();
  /** Groups that are open, and lines so far, of each node: those of another one may lie between them. @type {Map<string | undefined, {open: {index: number, title: string, header: boolean, from: number}[], lines: number, last: number}>} */
  const nodes = new Map();
  entries.forEach((entry, index) => {
    let node = nodes.get(entry.node);
    if (!node) nodes.set(entry.node, (node = { open: [], lines: 0, last: index }));
    const { open } = node;
    const before = node.last;
    node.lines += 1;
    node.last = index;
    const from = node.lines;
    const close = (/** @type {number} */ end, /** @type {number} */ lines) => {
      const group = open.pop();
      if (group) heads.set(group.index, { title: group.title, end, lines: lines - group.from });
    };
    const mark = markOf(entry);
    if (!mark) return;
    if (mark.kind === "header") {
      // Two lines of a unified diff, which look the same.
      const diff = (startsWith(entry, "--- ") && startsWith(entries[index + 1], "+++ ")) || (startsWith(entry, "+++ ") && startsWith(entries[before], "--- "));
      if (diff) return;
      if (open.at(-1)?.header) close(before, from - 1);
      open.push({ index, title: mark.title, header: true, from });
    } else if (mark.kind === "open") {
      open.push({ index, title: mark.title, header: false, from });
    } else {
      while (open.at(-1)?.header) close(before, from - 1);
      if (open.length === 0) return;
      ends.add(index);
      close(index, from - 1);
    }
  });
  for (const { open, lines, last } of nodes.values()) for (const group of open) heads.set(group.index, { title: group.title, end: last, lines: lines - group.from });
  /** @type {RowItem[]} */
  const rows = [];
  /** Up to which index a closed group of a node hides its lines. @type {Map<string | undefined, number>} */
  const hidden = new Map();
  for (const [index, entry] of entries.entries()) {
    const group = heads.get(index);
    if (index <= (hidden.get(entry.node) ?? -1)) continue;
    if (!group) {
      if (!ends.has(index)) rows.push({ entry, head: null });
      continue;
    }
    const isOpen = !closed.has(entry.position);
    rows.push({ entry, head: { title: group.title, lines: group.lines, ms: ((entries[group.end].atMicros ?? 0) - (entry.atMicros ?? 0)) / 1000, open: isOpen } });
    if (!isOpen) hidden.set(entry.node, group.end);
  }
  return rows;
}

/** Positions of all heads, to close every group. @param {Entry[]} entries */
export const headsOf = (entries) => rowsOf(entries, new Set()).filter((row) => row.head).map((row) => row.entry.position);
