// What differs between two outputs, line by line and within a line. Pure.

/** @typedef {{kind: "equal", lines: string[]} | {kind: "del" | "add", line: string, from: number, to: number}} Change `from` and `to` are what differs in the line. */

/** Lines beyond which only the equal beginning and end are looked for: what is between is shown as it is. */
const MOST = 400;

/**
 * @param {string[]} base
 * @param {string[]} other
 * @returns {Change[]}
 */
export function diff(base, other) {
  let start = 0;
  while (start < base.length && start < other.length && base[start] === other[start]) start += 1;
  let end = 0;
  while (end < base.length - start && end < other.length - start && base[base.length - 1 - end] === other[other.length - 1 - end]) end += 1;
  const left = base.slice(start, base.length - end);
  const right = other.slice(start, other.length - end);
  /** @type {Change[]} */
  const changes = [];
  if (start > 0) changes.push({ kind: "equal", lines: base.slice(0, start) });
  changes.push(...(left.length > MOST || right.length > MOST ? replaced(left, right) : middle(left, right)));
  if (end > 0) changes.push({ kind: "equal", lines: base.slice(base.length - end) });
  return changes;
}

/** By the longest common subsequence. @param {string[]} left @param {string[]} right @returns {Change[]} */
function middle(left, right) {
  const width = right.length + 1;
  const longest = new Uint16Array((left.length + 1) * width);
  for (let i = left.length - 1; i >= 0; i -= 1) {
    for (let j = right.length - 1; j >= 0; j -= 1) {
      longest[i * width + j] = left[i] === right[j] ? longest[(i + 1) * width + j + 1] + 1 : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  /** @type {Change[]} */
  const changes = [];
  /** @type {string[]} */
  let gone = [];
  /** @type {string[]} */
  let come = [];
  const flush = () => {
    changes.push(...replaced(gone, come));
    gone = [];
    come = [];
  };
  for (let i = 0, j = 0; i < left.length || j < right.length; ) {
    if (i < left.length && j < right.length && left[i] === right[j]) {
      flush();
      const last = changes.at(-1);
      if (last?.kind === "equal") last.lines.push(left[i]);
      else changes.push({ kind: "equal", lines: [left[i]] });
      i += 1;
      j += 1;
    } else if (j >= right.length || (i < left.length && longest[(i + 1) * width + j] >= longest[i * width + j + 1])) {
      gone.push(left[i]);
      i += 1;
    } else {
      come.push(right[j]);
      j += 1;
    }
  }
  flush();
  return changes;
}

/** Lines that took the place of others, in pairs as far as there are pairs. @param {string[]} gone @param {string[]} come @returns {Change[]} */
function replaced(gone, come) {
  /** @type {Change[]} */
  const changes = [];
  gone.forEach((line, index) => changes.push({ kind: "del", line, ...within(line, come[index]) }));
  come.forEach((line, index) => changes.push({ kind: "add", line, ...within(line, gone[index]) }));
  return changes;
}

/** The words that differ from the line in its place. @param {string} line @param {string | undefined} other */
function within(line, other) {
  if (other === undefined) return { from: 0, to: 0 };
  let from = 0;
  while (from < line.length && from < other.length && line[from] === other[from]) from += 1;
  let tail = 0;
  while (tail < line.length - from && tail < other.length - from && line[line.length - 1 - tail] === other[other.length - 1 - tail]) tail += 1;
  let to = line.length - tail;
  // Whole words: half a version number is hard to read.
  while (from > 0 && /[\w.:~+-]/.test(line[from - 1])) from -= 1;
  while (to < line.length && /[\w.:~+-]/.test(line[to])) to += 1;
  return { from, to };
}
