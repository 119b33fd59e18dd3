// The lines of one log that the page has: a window of up to three thousand, and the stream of what comes.
//
// At the end of a log that grows, lines come by the stream. Away from it, the page only asks from time to time how long
// the log has become: a reader that looks at something else costs nearly nothing.

import { ApiError, search } from "./api.js";
import { LogFeed } from "./log-feed.js";

/** @typedef {import("./types.js").Entry} Entry */
/** @typedef {import("./types.js").Lines} Lines */
/** @typedef {import("./log-feed.js").Source} Source */
/** @typedef {{uid: string, run: number, node: string, attempt: number | null, stream: string, since?: string, until?: string}} Log Times are in RFC 3339, by the clock of the node. */

/** Lines that are asked for at once. */
const WINDOW = 1000;

/** Entries that are kept at least: more than a screen and what is asked for beside it. */
const LEAST = 600;

const POLL_MS = 2000;

/** Maximum number of lines completed above the viewport that the page announces. */
const MOST_LATE = 100;

/** @implements {Source} */
export class LogSource extends LogFeed {
  #poll = 0;
  /** Position behind the last entry, or of an earlier line whose end is not there. */
  #next = 0;
  /** @type {Promise<void> | null} */
  #bounded = null;
  /** Positions that the times of the log mean: the first that is shown, and the first that is not any more. */
  floor = 0;
  ceiling = Infinity;
  /** Number of the first line that is shown, and of the first that is not any more. */
  base = 1;
  #behind = Infinity;
  /** Lines that an answer has room for: long ones fill it sooner. */
  #window = WINDOW;
  /** Positions of lines whose end is not there: each stream has one at most. @type {Set<number>} */
  #open = new Set();

  /** @type {Entry[]} */
  entries = [];
  attempt = 0;
  totalLines = 0;
  /** Bytes. */
  end = 0;
  /** Lines whose end came after other lines. @type {import("./types.js").Line[]} */
  late = [];

  /** @param {Log} log */
  constructor(log) {
    super();
    this.log = log;
  }

  get extent() {
    return Math.max(0, Math.min(this.totalLines + 1, this.#behind) - this.base);
  }

  /** @param {Entry} entry */
  ordinal(entry) {
    return "line" in entry ? entry.line - this.base + 1 : 0;
  }

  /** @param {number} ordinal */
  entryAt(ordinal) {
    const line = ordinal + this.base - 1;
    if (this.entries.length === 0 || firstLine(this.entries) > line) return undefined;
    return this.entries.find((entry) => "line" in entry && entry.line >= line) ?? (this.atEnd ? this.entries.at(-1) : undefined);
  }

  /** Finds out once where the times of the log are. */
  bounds() {
    return (this.#bounded ??= this.#bound());
  }

  async #bound() {
    const { since, until } = this.log;
    try {
      if (since) {
        const answer = await this.#ask({ since, count: 50 });
        this.floor = answer.lines[0]?.position ?? answer.end;
        this.base = answer.lines.some((entry) => "line" in entry) ? firstLine(answer.lines) : answer.totalLines + 1;
      }
      if (until) {
        const answer = await this.#ask({ since: until, count: 50 });
        if (answer.lines.length > 0) this.#endAt(answer.lines[0].position, firstLine(answer.lines));
      }
    } catch (error) {
      this.#bounded = null;
      throw error;
    }
  }

  /** @param {number} position @param {number} line */
  #endAt(position, line) {
    this.ceiling = position;
    this.#behind = line;
    this.ended = true;
  }

  /** @param {Entry[]} lines */
  #within(lines) {
    return lines.filter(({ position }) => position >= this.floor && position < this.ceiling);
  }

  /** @override */
  close() {
    super.close();
    clearTimeout(this.#poll);
  }

  /** @param {Record<string, string | number>} query */
  #path(query, more = "") {
    const { uid, run, node, attempt, stream } = this.log;
    return `executions/${uid}/${run}/${encodeURIComponent(node)}/lines${more}${search({ attempt: attempt ?? undefined, stream: stream === "both" ? undefined : stream, ...query })}`;
  }

  /** @param {Record<string, string | number>} query @returns {Promise<Lines>} */
  async #ask(query) {
    /** @type {Lines} */
    const answer = await this.askWhileWanted(this.#path({ count: WINDOW, ...query }));
    const { length } = answer.lines;
    if (length > 0 && length < WINDOW && query.count === undefined && answer.next < answer.end) this.#window = Math.max(16, length);
    else this.#window = Math.min(WINDOW, this.#window * 2);
    return answer;
  }

  /** Most entries that are kept. */
  get #keep() {
    return Math.max(LEAST, 3 * this.#window);
  }

  /** Rows from an end of the entries at which more are asked for. */
  get near() {
    return Math.ceil(0.3 * this.#window);
  }

  /** The end of the log. */
  tail() {
    return this.#begin(() => /** @type {Record<string, number>} */ (this.ceiling < Infinity ? { line: Math.max(this.base, this.#behind - WINDOW) } : { tail: WINDOW }));
  }

  /** Around a line. @param {number} ordinal */
  line(ordinal) {
    return this.#around(() => ({ line: Math.max(this.base, ordinal + this.base - 1) }));
  }

  /** Around a position, which stays when the log grows or is archived. @param {number} position */
  position(position) {
    return this.#around(() => ({ position }));
  }

  /** From a time. @param {string} since */
  since(since) {
    return this.#around(() => ({ since }));
  }

  /** @param {() => Record<string, string | number>} ask */
  async #around(ask) {
    const isShown = await this.#begin(ask);
    if (isShown && this.entries.length > 0) await this.earlier();
    return isShown;
  }

  /** @param {() => Record<string, string | number>} ask */
  #begin(ask) {
    return this.begin(async (isLate) => {
      await this.bounds();
      const query = ask();
      let answer = await this.#ask(query);
      // The end has to be there, if with fewer lines.
      while (Number(query.tail) > 1 && !this.#reachesEnd(answer) && !isLate()) {
        query.tail = Math.max(1, Math.min(answer.lines.length, Math.floor(Number(query.tail) / 2)));
        answer = await this.#ask(query);
      }
      if (isLate()) return;
      this.#totals(answer);
      this.entries = [];
      this.#open.clear();
      this.#put(this.#within(answer.lines));
      this.#next = answer.next;
      const isTail = query.tail !== undefined;
      this.atStart = this.#startsAtFirst() || query.line === this.base || (isTail && answer.lines.length < Number(query.tail));
      this.#reached(isTail || this.#reachesEnd(answer));
    });
  }

  /** Lines behind the last one. @returns {Promise<void>} */
  more() {
    if (this.atEnd || this.entries.length === 0) return Promise.resolve();
    return this.extend("more", async (isLate) => {
      const from = this.#next;
      const last = this.entries[this.entries.length - 1].position;
      try {
        // From a line whose end is not there, the same lines would come again.
        let answer = await this.#ask(from > last ? { position: from } : { line: lastLine(this.entries) });
        if (from <= last && answer.lines.every(({ position }) => position <= last)) answer = await this.#ask({ line: lastLine(this.entries) + 1 });
        // Meanwhile the end may have been dropped.
        if (isLate() || from !== this.#next) return;
        this.#totals(answer);
        this.#put(this.#within(answer.lines));
        this.#next = answer.next;
        this.#trimHead();
        this.#reached(this.#reachesEnd(answer));
      } catch (error) {
        // The position is behind the last byte.
        if (!(error instanceof ApiError && error.status === 416)) throw error;
        this.#reached(true);
      }
    });
  }

  /** Lines before the first one. @returns {Promise<void>} */
  earlier() {
    if (this.atStart || this.entries.length === 0) return Promise.resolve();
    return this.extend("earlier", async (isSuperseded) => {
      const first = this.entries[0];
      // Meanwhile the beginning may have been dropped.
      const isLate = () => isSuperseded() || this.entries[0]?.position !== first.position;
      let line = firstLine(this.entries);
      // With one stream shown, a thousand lines may hold none of it: further back, in longer steps.
      for (let step = this.#window; !isLate(); step *= 4) {
        line = Math.max(this.base, line - step);
        const answer = await this.#ask({ line });
        const found = this.#within(answer.lines).filter((entry) => entry.position < first.position);
        if (found.length === 0 && line > this.base) continue;
        const whole = await this.#fill(found, answer.next, first.position);
        if (isLate()) break;
        this.entries = [...found, ...this.entries];
        this.atStart = whole && (line === this.base || this.#startsAtFirst());
        this.#trimTail();
        this.#awaitEnds(found);
        break;
      }
    });
  }

  /** Appends what lies between two positions, as far as it is kept; says whether all of it is. @param {Entry[]} found @param {number} from @param {number} to */
  async #fill(found, from, to) {
    let whole = true;
    for (let next = from; next < to; ) {
      const answer = await this.#ask({ position: next });
      found.push(...answer.lines.filter(({ position }) => position >= next && position < to));
      const over = found.length - this.#keep;
      if (over > 0) {
        found.splice(0, over);
        whole = false;
      }
      if (answer.next <= next) break;
      next = answer.next;
    }
    return whole;
  }

  /** @param {Lines} answer */
  #totals(answer) {
    this.attempt = answer.attempt;
    this.totalLines = Math.max(answer.totalLines, lastLine(answer.lines));
    this.end = answer.end;
    this.ended = answer.ended || this.ceiling < Infinity;
  }

  /** The entries reach the end of what there is, or not any more. @param {boolean} whether */
  #reached(whether) {
    this.atEnd = whether;
    this.unfollow();
    clearTimeout(this.#poll);
    if (this.closed || (whether && this.ended)) return;
    if (whether) this.#follow();
    else if (!this.ended) this.#poll = setTimeout(() => void this.#ends(), POLL_MS);
  }

  /** Of earlier lines too. @param {Entry[]} lines */
  #awaitEnds(lines) {
    const open = lines.filter((entry) => "line" in entry && entry.open);
    for (const { position } of open) this.#open.add(position);
    if (open.length > 0 && this.stream.peek()) this.#reached(true);
  }

  #follow() {
    const first = this.entries[0]?.position ?? 0;
    this.follow(
      Math.min(this.#next, ...[...this.#open].filter((position) => position >= first)),
      (from) => this.#path({ from }, "/events"),
      ({ lines }, id) => {
        this.#append(lines);
        if (id !== null) this.#next = Number(id);
      },
      ({ totalLines }) => (this.totalLines = totalLines ?? this.totalLines),
    );
  }

  /** How long it has become, while something else of it is shown. */
  async #ends() {
    if (!document.hidden) {
      try {
        this.#totals(await this.#ask({ tail: 1 }));
        this.changed();
      } catch (error) {
        this.failed(error);
      }
    }
    if (!this.closed && !this.atEnd && !this.ended) this.#poll = setTimeout(() => void this.#ends(), POLL_MS);
  }

  /** Those that the stream sends. @param {Entry[]} lines */
  #append(lines) {
    const until = this.log.until ? Date.parse(this.log.until) * 1000 : Infinity;
    const end = lines.findIndex((entry) => (entry.atMicros ?? 0) >= until && "line" in entry);
    const shown = (end < 0 ? lines : lines.slice(0, end)).filter(({ position }) => position >= this.floor);
    const last = this.entries.at(-1)?.position ?? 0;
    const late = shown.filter((entry) => "line" in entry && !entry.open && entry.position < last && this.#open.has(entry.position));
    this.late = [...this.late, .../** @type {import("./types.js").Line[]} */ (late)].slice(-MOST_LATE);
    this.#put(shown);
    this.totalLines = Math.max(this.totalLines, lastLine(shown));
    const beyond = end < 0 ? undefined : lines[end];
    if (beyond && "line" in beyond) {
      this.#endAt(beyond.position, beyond.line);
      this.#reached(true);
    }
  }

  /** Each at its place: a line whose end was not there comes again when it is, and others with it. @param {Entry[]} lines */
  #put(lines) {
    for (const entry of lines) {
      if ("line" in entry && entry.open) this.#open.add(entry.position);
      else this.#open.delete(entry.position);
      const at = this.#indexOf(entry.position);
      const before = this.entries[at - 1];
      if (this.entries[at]?.position === entry.position) this.entries[at] = entry;
      else if (at === this.entries.length) {
        if (before && "line" in before && "line" in entry && before.open && entry.continues && before.line === entry.line) {
          this.entries[at - 1] = { ...before, open: false };
          this.#open.delete(before.position);
        }
        this.entries.push(entry);
      } else if (at > 0) this.entries.splice(at, 0, entry);
    }
  }

  /** The first entry at or behind a position. @param {number} position */
  #indexOf(position) {
    let low = 0;
    let high = this.entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.entries[middle].position < position) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Follows with a bounded number of entries: old ones go while the end is shown, new ones wait while it is not. @param {boolean} showsEnd */
  settle(showsEnd) {
    if (this.entries.length <= this.#keep) return;
    if (showsEnd) this.#trimHead();
    else if (this.atEnd) {
      this.#trimTail();
      this.changed();
    }
  }

  #trimHead() {
    if (this.entries.length <= this.#keep) return;
    this.entries = this.entries.slice(-this.#keep);
    this.atStart = false;
  }

  #trimTail() {
    if (this.entries.length <= this.#keep) return;
    this.#next = this.entries[this.#keep].position;
    this.entries = this.entries.slice(0, this.#keep);
    if (this.atEnd) this.#reached(false);
  }

  /** Nothing is behind it yet; `next` may be an open line, which need not be the last. @param {Lines} answer */
  #reachesEnd({ lines, next, end, totalLines }) {
    const last = lines.at(-1);
    return next >= Math.min(end, this.ceiling) || last === undefined || ("open" in last && last.open === true) || lastLine(lines) >= totalLines;
  }

  #startsAtFirst() {
    const first = this.entries[0];
    return first !== undefined && "line" in first && first.line === this.base && !first.continues;
  }
}

/** @param {Entry[]} entries */
function firstLine(entries) {
  for (const entry of entries) if ("line" in entry) return entry.line;
  return 1;
}

/** @param {Entry[]} entries */
export function lastLine(entries) {
  for (let index = entries.length - 1; index >= 0; index -= 1) {
    const entry = entries[index];
    if ("line" in entry) return entry.line;
  }
  return 0;
}
