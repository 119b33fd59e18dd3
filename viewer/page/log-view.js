// The rows of a log in a window of their own. The scroller is an empty drawing of a bounded height; what is in the
// document is one screen of rows, which stays in place while the position of the scroller is mapped to a line.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { count } from "./format.js";
import { height, lineAt, ROW, rowsIn, topOf, wheelLines } from "./scroll.js";
import { rowsOf } from "./log-groups.js";
import { Row } from "./log-rows.js";
import { Icon } from "./parts.js";

/** @typedef {import("./log-feed.js").Source} Source */
/** @typedef {import("./types.js").Entry} Entry */
/** @typedef {import("./log-groups.js").RowItem} RowItem */

/** Most rows in the document, on any screen. */
const MOST_ROWS = 250;

/**
 * What the page can tell the view to do.
 *
 * @typedef {object} Controls
 * @property {(rows: number) => void} by
 * @property {(pages: number) => void} page
 * @property {() => void} home
 * @property {() => void} end
 * @property {(ordinal: number) => Promise<void>} line
 * @property {(position: number) => void} show puts an entry that is there a third of the screen below the top
 * @property {(step: number) => boolean} gap
 */

/**
 * @param {{source: Source, following: boolean, onFollow: (on: boolean) => void, closed: Set<number>, onFold: (position: number) => void, time: string, start: number, now: number, wrap: boolean,
 *   marked: {from: number, to: number} | null, linkOf: (entry: Entry) => string, onMark: (entry: Entry, range: boolean) => void, controls: {current: Controls | null}, label: string, last: any, find: import("./log-search.js").Hits<any> | null, hit: Entry | undefined, solo?: boolean, onShown: (from: Entry | undefined, to: Entry | undefined) => void}} props
 */
export function LogView({ source, following, onFollow, closed, onFold, time, start, now, wrap, marked, linkOf, onMark, controls, label, last, find, hit, solo = true, onShown }) {
  const view = useRef(/** @type {HTMLElement | null} */ (null));
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  const [size, setSize] = useState(600);
  const [top, setTop] = useState(/** @type {number | null} */ (null));
  const [hover, setHover] = useState(-1);
  /** Where the scroll bar belongs: an event that says so is not the reader's. */
  const put = useRef(-1);
  const rest = useRef(0);
  const jump = useRef(0);

  const version = source.version.value;
  // Of one moment: the source may have more, and its end, a while before this is drawn again.
  const { rows, atEnd } = useMemo(() => ({ rows: rowsOf(source.entries, closed), atEnd: source.atEnd }), [version, closed, source]);
  const shape = { lines: Math.max(source.extent, 1), view: size };
  const visible = Math.min(MOST_ROWS, rowsIn(shape) + 1);
  const atBottom = following || top === null;
  const most = Math.max(0, rows.length - visible + 1);
  const from = atBottom ? most : Math.min(indexOf(rows, top), Math.max(0, rows.length - 1));
  const shown = rows.slice(from, from + visible);
  const showsLast = atEnd && from + visible > rows.length;

  source.settle(atBottom);
  useEffect(() => {
    if (!source.atEnd && from + visible > rows.length - source.near) void source.more();
    if (!source.atStart && from < source.near) void source.earlier();
  }, [from, rows.length, version]);

  // The scroll bar says which line is at the top.
  useLayoutEffect(() => {
    const element = view.current;
    if (!element) return;
    const wanted = atBottom && atEnd ? height(shape) - size : topOf(ordinalOf(source, shown), shape);
    if (Math.abs(element.scrollTop - wanted) >= 1) element.scrollTop = wanted;
    // The browser may allow less.
    put.current = element.scrollTop;
  });
  useEffect(() => onShown(shown.find(isLine)?.entry, shown.findLast(isLine)?.entry), [from, shown.length, version]);
  useEffect(() => {
    const element = /** @type {HTMLElement} */ (view.current);
    const watcher = new ResizeObserver(() => setSize(element.clientHeight));
    watcher.observe(element);
    // Not passive: a notch is three lines, whatever the browser makes of the height.
    const onWheel = (/** @type {WheelEvent} */ event) => {
      if (event.ctrlKey || event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) return;
      event.preventDefault();
      const moved = wheelLines(event, rest.current, Math.floor(element.clientHeight / ROW));
      rest.current = moved.rest;
      if (moved.lines !== 0) controls.current?.by(moved.lines);
    };
    element.addEventListener("wheel", onWheel, { passive: false });
    return () => {
      watcher.disconnect();
      element.removeEventListener("wheel", onWheel);
      clearTimeout(jump.current);
    };
  }, []);
  // Who selects text reads it.
  useEffect(() => {
    const onSelect = () => {
      const selection = document.getSelection();
      if (following && selection && !selection.isCollapsed && view.current?.contains(selection.anchorNode)) pause();
    };
    document.addEventListener("selectionchange", onSelect);
    return () => document.removeEventListener("selectionchange", onSelect);
  }, [following, from]);

  /** Where the reader wants to be among what is there, so that an earlier wish for what is not does not count any more. */
  const moveTo = (/** @type {number | null} */ position) => {
    source.stay();
    clearTimeout(jump.current);
    setTop(position);
  };
  const setIndex = (/** @type {number} */ index) => {
    const row = rows[Math.max(0, Math.min(index, wrap ? rows.length - 1 : most))];
    if (row) moveTo(row.entry.position);
  };
  const pause = () => {
    if (!following) return;
    setIndex(from);
    onFollow(false);
  };
  controls.current = {
    by(step) {
      if (rows.length === 0) return;
      if (following && step > 0) return;
      const index = from + step;
      if (step > 0 && index >= most && atEnd && (!wrap || index >= rows.length - 1)) {
        moveTo(null);
        if (!source.ended) onFollow(true);
        return;
      }
      if (following) onFollow(false);
      setIndex(index);
    },
    page(pages) {
      // Wrapped rows are measured, and only those that are shown.
      const bottom = view.current?.getBoundingClientRect().bottom ?? 0;
      const whole = wrap ? [...(list.current?.children ?? [])].filter((row) => row.getBoundingClientRect().bottom <= bottom).length : rowsIn(shape);
      this.by(pages * Math.max(1, whole - 1));
    },
    home() {
      if (following) onFollow(false);
      if (source.atStart) return setIndex(0);
      void source.line(1).then((isShown) => isShown && setTop(source.entries[0]?.position ?? null));
    },
    end() {
      const settle = () => {
        moveTo(null);
        if (!source.ended) onFollow(true);
      };
      if (source.atEnd) settle();
      else void source.tail().then((isShown) => isShown && settle());
    },
    async line(ordinal) {
      if (following) onFollow(false);
      const known = source.entryAt(ordinal);
      if (known) moveTo(known.position);
      else if (await source.line(ordinal)) setTop((source.entryAt(ordinal) ?? source.entries.at(-1))?.position ?? null);
    },
    show(position) {
      if (following) onFollow(false);
      // The rows that are drawn may be those of before.
      const all = rowsOf(source.entries, closed);
      moveTo(all[Math.max(0, indexOf(all, position) - Math.floor(visible / 3))]?.entry.position ?? position);
    },
    gap(step) {
      const at = shown.findIndex(({ entry }) => isGap(entry));
      const list_ = step > 0 ? rows.slice(from + (at === 0 ? 1 : at > 0 ? at + 1 : 1)) : rows.slice(0, Math.max(0, from)).reverse();
      const next = list_.find(({ entry }) => isGap(entry));
      if (next) this.show(next.entry.position);
      return next !== undefined;
    },
  };
  const onScroll = () => {
    const element = view.current;
    if (!element || Math.abs(element.scrollTop - put.current) < 1.5) return;
    const line = lineAt(element.scrollTop, shape);
    const known = source.entryAt(line);
    clearTimeout(jump.current);
    if (following) onFollow(false);
    if (known) moveTo(known.position);
    // While the bar is dragged through a long log, only where it rests is asked for.
    else jump.current = setTimeout(() => void controls.current?.line(line), 60);
  };
  const positionOf = (/** @type {Event} */ event) => Number(/** @type {Element} */ (event.target).closest?.("[data-position]")?.getAttribute("data-position") ?? -1);
  const onClick = (/** @type {MouseEvent} */ event) => {
    const link = /** @type {Element} */ (event.target).closest?.("a.n");
    if (!link || event.ctrlKey || event.metaKey) return;
    const row = rows[indexOf(rows, positionOf(event))];
    event.preventDefault();
    if (row) onMark(row.entry, event.shiftKey);
  };
  const isMarked = (/** @type {number} */ position) => marked !== null && position >= marked.from && position <= marked.to;
  return html`<div class=${`view log-view ${atBottom && atEnd ? "at-end" : ""}`} ref=${view} onScroll=${onScroll} tabindex="0" role="log" aria-live="off" aria-label=${label}>
    <div class="pane"><ol class=${`rows ${solo ? "solo" : ""} ${wrap ? "wrap" : ""}`} ref=${list} onMouseOver=${(/** @type {Event} */ event) => setHover(positionOf(event))} onMouseLeave=${() => setHover(-1)} onClick=${onClick}>
      ${shown.map(({ entry, head }, index) => html`<${Row} key=${entry.position} entry=${entry} head=${head} before=${rows[from + index - 1]?.entry} time=${time} start=${start} now=${now} total=${source.ended ? source.extent : -1} ordinal=${source.ordinal(entry)} who=${!solo} late=${!solo && /** @type {import("./types.js").Merged} */ (entry).late}
        marked=${isMarked(entry.position)} link=${entry.position === hover || isMarked(entry.position) ? linkOf(entry) : undefined} hit=${find?.hitIn(entry)?.match} isNow=${hit !== undefined && find?.hitIn(entry) === hit} onFold=${() => onFold(entry.position)} />`)}
      ${showsLast && last}</ol></div>
    <svg class="spacer" width="1" height=${height(shape)} aria-hidden="true"></svg></div>`;
}

/** @param {import("./types.js").Entry} entry */
const isGap = (entry) => !("text" in entry);

/** The first row at or behind a position. @param {RowItem[]} rows @param {number | null} position */
function indexOf(rows, position) {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].entry.position < (position ?? 0)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** @param {RowItem} row */
const isLine = ({ entry }) => "line" in entry;

/** The place of the first line among rows. @param {Source} source @param {RowItem[]} rows */
function ordinalOf(source, rows) {
  const first = rows.find(isLine);
  return first ? source.ordinal(first.entry) : 1;
}

/** @param {{lines: number, onClick: () => void}} props */
export const NewLines = ({ lines, onClick }) => html`<button type="button" class="btn solid newer" onClick=${onClick}><${Icon} name="down" />${lines > 0 ? `${count(lines)} new ${lines === 1 ? "line" : "lines"}` : "To the end"}</button>`;
