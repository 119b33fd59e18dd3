// Which line is at the top for a position of the scroll bar, and back. Browsers cap the height of an element (about
// 17.9 M px in Firefox), so a long log has a scroller of a fixed height whose position is mapped to a line. Pure.

/** Height of a row without wrap. */
export const ROW = 20;

/** Most height of a scroller, px. */
export const TALLEST = 4_000_000;

/** @typedef {{lines: number, view: number}} Shape How many lines there are, and how high the window is, px. */

/** Whole rows that fit. @param {Shape} shape */
export const rowsIn = ({ view }) => Math.max(1, Math.floor(view / ROW));

/** Height of what scrolls. @param {Shape} shape */
export const height = ({ lines, view }) => Math.max(view, Math.min(lines * ROW, TALLEST));

/** The last line, from 1, that may be at the top. @param {Shape} shape */
export const lastTop = (shape) => Math.max(1, shape.lines - rowsIn(shape) + 1);

/** The line at the top, from 1. @param {number} top @param {Shape} shape */
export function lineAt(top, shape) {
  const way = height(shape) - shape.view;
  if (way <= 0) return 1;
  return 1 + Math.round((Math.min(Math.max(top, 0), way) / way) * (lastTop(shape) - 1));
}

/** The position of the scroll bar for a line at the top. @param {number} line @param {Shape} shape */
export function topOf(line, shape) {
  const last = lastTop(shape) - 1;
  if (last <= 0) return 0;
  return Math.round((Math.min(Math.max(line - 1, 0), last) / last) * (height(shape) - shape.view));
}

/** Height of the drawing of hits, in its own units. */
export const MAP = 600;

/** Where places among all lines are in the drawing, each place once. @param {Iterable<number>} ordinals in order, from 1 @param {number} extent */
export function marksOf(ordinals, extent) {
  /** @type {number[]} */
  const marks = [];
  for (const ordinal of ordinals) {
    const y = Math.round(((ordinal - 0.5) / Math.max(1, extent)) * (MAP - 2)) + 1;
    if (y !== marks.at(-1)) marks.push(y);
  }
  return marks;
}

/** The hit nearest to a place of the drawing. @param {number} share from its top, 0 to 1 @param {number} extent @param {{line: number}[]} hits in order @param {number} base number of the first line */
export function nearestHit(share, extent, hits, base) {
  const wanted = base + share * extent - 0.5;
  let best = -1;
  for (const [index, { line }] of hits.entries()) {
    if (best < 0 || Math.abs(line - wanted) < Math.abs(hits[best].line - wanted)) best = index;
    else if (line > wanted) break;
  }
  return best;
}

/**
 * Lines that a turn of the wheel moves: three a notch, whatever the length of the log. Touch pads send small steps,
 * whose rest is kept.
 *
 * @param {{deltaY: number, deltaMode: number}} wheel
 * @param {number} rest
 * @param {number} page lines of a page
 * @returns {{lines: number, rest: number}}
 */
export function wheelLines({ deltaY, deltaMode }, rest, page) {
  const perNotch = 3;
  const exact =
    deltaMode === 1 ? deltaY
    : deltaMode === 2 ? deltaY * page
    : Math.abs(deltaY) >= 100 ? (deltaY / (Math.abs(deltaY) % 120 === 0 ? 120 : 100)) * perNotch
    : deltaY / ROW;
  const all = exact + rest;
  // Tenths do not add up exactly.
  const lines = Math.trunc(all + Math.sign(all) * 1e-9);
  return { lines, rest: all - lines };
}
