// The lines of one log that the page has: a window of up to three thousand, and the stream of what comes.
//
// At the end of a log that grows, lines come by the stream. Away from it, the page only asks from time to time how long
// the log has become: a reader that looks at something else costs nearly nothing.

import { signal } from "./vendor/signals.js";
import { ApiError, askUntil, EventStream, isPassing, search } from "./api.js";

/** @typedef {import("./types.js").Entry} Entry */
/** @typedef {import("./types.js").Lines} Lines */
/** @typedef {{uid: string, run: number, node: string, attempt: number | null, stream: string, since?: string, until?: string}} Log Times are in RFC 3339, by the clock of the node. */

/**
 * What a view shows.
 *
 * @typedef {object} Source
 * @property {Entry[]} entries in the order of their positions
 * @property {boolean} atStart whether they begin with the first
 * @property {boolean} atEnd and end with the last
 * @property {boolean} ended whether no more will come
 * @property {number} near rows from an end of the entries at which more are asked for
 * @property {number} extent how many lines there are, as far as that is known
 * @property {(entry: Entry) => number} ordinal the place of one among them, from 1; 0 for what is no line
 * @property {(ordinal: number) => Entry | undefined} entryAt the one at that place, or the next; none if it has to be asked for
 * @property {import("./vendor/signals.js").Signal<number>} version
 * @property {(showsEnd: boolean) => void} settle
 * @property {() => Promise<void>} more
 * @property {() => Promise<void>} earlier
 * @property {() => Promise<void>} tail
 * @property {(ordinal: number) => Promise<void>} line
 */

/** Lines that are asked for at once. */
const WINDOW = 1000;

/** Entries that are kept at least: more than a screen and what is asked for beside it. */
const LEAST = 600;

const POLL_MS = 2000;

/** @implements {Source} */
export class LogSource {
  #abort = new AbortController();
  /** One request for more at a time, in each direction. @type {{more: Promise<void> | null, earlier: Promise<void> | null}} */
  #busy = { more: null, earlier: null };
  /** Grows with every new window: an answer to an earlier question is too late. */
  #turn = 0;
  #frame = 0;
  #poll = 0;
  /** Position behind the last entry. */
  #next = 0;
  #closed = false;
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

  /** @type {Entry[]} */
  entries = [];
  attempt = 0;
  totalLines = 0;
  /** Bytes, and whether all have arrived. */
  end = 0;
  ended = false;
  /** Whether the entries begin with the first line, and end with the last. */
  atStart = false;
  atEnd = false;
  /** Whether anything has been read. */
  loaded = false;

  /** Changes at most once a frame. */
  version = signal(0);
  error = signal(/** @type {ApiError | null} */ (null));
  /** @type {import("./vendor/signals.js").Signal<EventStream | null>} */
  stream = signal(null);
  /** Since when a question without a stream has had no answer, 0 while they have. */
  away = signal(0);

  /** @param {Log} log */
  constructor(log) {
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

  close() {
    this.#closed = true;
    this.#abort.abort();
    this.stream.peek()?.close();
    clearTimeout(this.#poll);
    cancelAnimationFrame(this.#frame);
  }

  /** @param {Record<string, string | number>} query */
  #path(query, more = "") {
    const { uid, run, node, attempt, stream } = this.log;
    return `executions/${uid}/${run}/${encodeURIComponent(node)}/lines${more}${search({ attempt: attempt ?? undefined, stream: stream === "both" ? undefined : stream, ...query })}`;
  }

  /** @param {Record<string, string | number>} query @returns {Promise<Lines>} */
  async #ask(query) {
    const turn = this.#turn;
    const isWanted = (/** @type {unknown} */ error) => {
      this.#failed(error);
      return this.loaded && turn === this.#turn;
    };
    /** @type {Lines} */
    const answer = await askUntil(this.#path({ count: WINDOW, ...query }), this.#abort.signal, isWanted);
    this.away.value = 0;
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
  async tail() {
    await this.#begin(() => /** @type {Record<string, number>} */ (this.ceiling < Infinity ? { line: Math.max(this.base, this.#behind - WINDOW) } : { tail: WINDOW }));
  }

  /** Around a line. @param {number} ordinal */
  async line(ordinal) {
    await this.#begin(() => ({ line: Math.max(this.base, ordinal + this.base - 1) }));
    if (this.entries.length > 0) await this.earlier();
  }

  /** Around a position, which stays when the log grows or is archived. @param {number} position */
  async position(position) {
    await this.#begin(() => ({ position }));
    if (this.entries.length > 0) await this.earlier();
  }

  /** From a time. @param {string} since */
  async since(since) {
    await this.#begin(() => ({ since }));
    if (this.entries.length > 0) await this.earlier();
  }

  /** A window that replaces what was there. @param {() => Record<string, string | number>} ask */
  async #begin(ask) {
    const turn = (this.#turn += 1);
    try {
      await this.bounds();
      const query = ask();
      let answer = await this.#ask(query);
      // The end has to be there, if with fewer lines.
      while (Number(query.tail) > 1 && !this.#reachesEnd(answer) && turn === this.#turn) {
        query.tail = Math.max(1, Math.min(answer.lines.length, Math.floor(Number(query.tail) / 2)));
        answer = await this.#ask(query);
      }
      if (turn !== this.#turn) return;
      this.#totals(answer);
      this.entries = this.#within(answer.lines);
      this.#next = answer.next;
      const isTail = query.tail !== undefined;
      this.atStart = this.#startsAtFirst() || query.line === this.base || (isTail && answer.lines.length < Number(query.tail));
      this.#reached(isTail || this.#reachesEnd(answer));
      this.loaded = true;
      this.error.value = null;
    } catch (error) {
      if (turn === this.#turn) this.#failed(error);
    }
    this.#changed();
  }

  /** Lines behind the last one. @returns {Promise<void>} */
  more() {
    if (this.atEnd || this.entries.length === 0) return Promise.resolve();
    return (this.#busy.more ??= this.#more());
  }

  /** Lines before the first one. @returns {Promise<void>} */
  earlier() {
    if (this.atStart || this.entries.length === 0) return Promise.resolve();
    return (this.#busy.earlier ??= this.#earlier());
  }

  async #more() {
    const turn = this.#turn;
    const from = this.#next;
    try {
      const answer = await this.#ask({ position: from });
      // Meanwhile the end may have been dropped.
      if (turn === this.#turn && from === this.#next) {
        this.#totals(answer);
        this.entries = [...this.entries, ...this.#within(answer.lines).filter((entry) => entry.position >= from)];
        this.#next = answer.next;
        this.#trimHead();
        this.#reached(this.#reachesEnd(answer));
      }
    } catch (error) {
      // The position is behind the last byte.
      if (error instanceof ApiError && error.status === 416) this.#reached(true);
      else this.#failed(error);
    }
    this.#busy.more = null;
    this.#changed();
  }

  async #earlier() {
    const first = this.entries[0];
    const turn = this.#turn;
    // Meanwhile the beginning may have been dropped.
    const isLate = () => turn !== this.#turn || this.entries[0]?.position !== first.position;
    try {
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
        break;
      }
    } catch (error) {
      this.#failed(error);
    }
    this.#busy.earlier = null;
    this.#changed();
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

  /** @param {unknown} error */
  #failed(error) {
    if (this.#closed || !(error instanceof ApiError)) return;
    if (isPassing(error)) this.away.value ||= Date.now();
    if (!this.loaded) this.error.value = error;
  }

  /** The entries reach the end of what there is, or not any more. @param {boolean} whether */
  #reached(whether) {
    this.atEnd = whether;
    this.stream.peek()?.close();
    this.stream.value = null;
    clearTimeout(this.#poll);
    if (this.#closed || (whether && this.ended)) return;
    if (whether) this.#follow();
    else if (!this.ended) this.#poll = setTimeout(() => void this.#ends(), POLL_MS);
  }

  #follow() {
    const from = this.#next;
    /** @type {EventStream} */
    const stream = new EventStream(
      () => this.#path({ from: stream?.lastId ?? from }, "/events"),
      (event) => {
        if (this.stream.peek() !== stream) return;
        const data = event.data ? JSON.parse(event.data) : {};
        if (event.event === "end") {
          this.ended = true;
          if (data.totalLines) this.totalLines = data.totalLines;
          stream.close();
          this.stream.value = null;
          this.#changed();
        } else if (event.event === "lines") {
          this.#append(Array.isArray(data) ? data : data.lines ?? []);
          if (event.id !== null) this.#next = Number(event.id);
        }
      },
    );
    this.stream.value = stream;
  }

  /** How long it has become, while something else of it is shown. */
  async #ends() {
    if (!document.hidden) {
      try {
        this.#totals(await this.#ask({ tail: 1 }));
        this.#changed();
      } catch (error) {
        this.#failed(error);
      }
    }
    if (!this.#closed && !this.atEnd && !this.ended) this.#poll = setTimeout(() => void this.#ends(), POLL_MS);
  }

  /** @param {Entry[]} lines */
  #append(lines) {
    const until = this.log.until ? Date.parse(this.log.until) * 1000 : Infinity;
    for (const entry of lines) {
      if (entry.position < this.floor) continue;
      if ((entry.atMicros ?? 0) >= until && "line" in entry) {
        this.#endAt(entry.position, entry.line);
        this.#reached(true);
        break;
      }
      // A line whose end was not there comes again when it is.
      const at = this.entries.findLastIndex((other, index) => index > this.entries.length - 200 && other.position === entry.position);
      const before = at < 0 ? this.entries.at(-1) : undefined;
      if (at >= 0) this.entries[at] = entry;
      else {
        if (before && "line" in before && "line" in entry && before.open && entry.continues && before.line === entry.line) this.entries[this.entries.length - 1] = { ...before, open: false };
        this.entries.push(entry);
      }
      if ("line" in entry) this.totalLines = Math.max(this.totalLines, entry.line);
    }
    this.#changed();
  }

  /** Follows with a bounded number of entries: old ones go while the end is shown, new ones wait while it is not. @param {boolean} showsEnd */
  settle(showsEnd) {
    if (this.entries.length <= this.#keep) return;
    if (showsEnd) this.#trimHead();
    else if (this.atEnd) {
      this.#trimTail();
      this.#changed();
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

  /** Nothing is behind it yet: an open line is the last one. @param {Lines} answer */
  #reachesEnd({ lines, next, end }) {
    const last = lines.at(-1);
    return next >= Math.min(end, this.ceiling) || last === undefined || ("open" in last && last.open === true);
  }

  #startsAtFirst() {
    const first = this.entries[0];
    return first !== undefined && "line" in first && first.line === this.base && !first.continues;
  }

  #changed() {
    if (this.#frame || this.#closed) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.version.value += 1;
    });
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
