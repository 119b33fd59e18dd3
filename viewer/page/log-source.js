// The lines of one log that the page has: a window of up to three thousand, and the stream of what comes.
//
// At the end of a log that grows, lines come by the stream. Away from it, the page only asks from time to time how long
// the log has become: a reader that looks at something else costs nearly nothing.

import { signal } from "./vendor/signals.js";
import { ApiError, ask, EventStream, search } from "./api.js";

/** @typedef {import("./types.js").Entry} Entry */
/** @typedef {import("./types.js").Lines} Lines */
/** @typedef {{uid: string, run: number, node: string, attempt: number | null, stream: string}} Log */

/** Lines that are asked for at once. */
const WINDOW = 1000;

/** Most entries that are kept. */
const KEEP = 3 * WINDOW;

const POLL_MS = 2000;

export class LogSource {
  #log;
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
    this.#log = log;
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
    const { uid, run, node, attempt, stream } = this.#log;
    return `executions/${uid}/${run}/${encodeURIComponent(node)}/lines${more}${search({ attempt: attempt ?? undefined, stream: stream === "both" ? undefined : stream, ...query })}`;
  }

  /** @param {Record<string, string | number>} query @returns {Promise<Lines>} */
  async #ask(query) {
    const answer = await ask(this.#path({ count: WINDOW, ...query }), { signal: this.#abort.signal });
    this.away.value = 0;
    return answer;
  }

  /** The end of the log. */
  async tail() {
    await this.#begin({ tail: WINDOW }, true);
  }

  /** Around a line. @param {number} line */
  async line(line) {
    await this.#begin({ line: Math.max(1, line - WINDOW / 2) }, false);
  }

  /** Around a position, which stays when the log grows or is archived. @param {number} position */
  async position(position) {
    await this.#begin({ position }, false);
    if (this.entries.length > 0) await this.earlier();
  }

  /** From a time. @param {string} since */
  async since(since) {
    await this.#begin({ since }, false);
    if (this.entries.length > 0) await this.earlier();
  }

  /** A window that replaces what was there. @param {Record<string, string | number>} query @param {boolean} isTail */
  async #begin(query, isTail) {
    const turn = (this.#turn += 1);
    try {
      const answer = await this.#ask(query);
      if (turn !== this.#turn) return;
      this.#totals(answer);
      this.entries = answer.lines;
      this.#next = answer.next;
      this.atStart = startsAtFirst(answer.lines) || query.line === 1 || (isTail && answer.lines.length < WINDOW);
      this.#reached(isTail || reachesEnd(answer));
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
        this.entries = [...this.entries, ...answer.lines.filter((entry) => entry.position >= from)];
        this.#next = answer.next;
        this.#trimHead();
        this.#reached(reachesEnd(answer));
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
    try {
      let line = firstLine(this.entries);
      // With one stream shown, a thousand lines may hold none of it: further back, in longer steps.
      for (let step = WINDOW; turn === this.#turn; step *= 4) {
        line = Math.max(1, line - step);
        const answer = await this.#ask({ line });
        const found = answer.lines.filter((entry) => entry.position < first.position);
        if (turn !== this.#turn || this.entries[0]?.position !== first.position) break;
        if (found.length === 0 && line > 1) continue;
        // A longer step may have left lines out between them.
        const last = found.at(-1);
        if (last && answer.lines.length === found.length && answer.next < first.position) await this.#fill(found, answer.next, first.position);
        // Meanwhile the beginning may have been dropped.
        if (turn !== this.#turn || this.entries[0]?.position !== first.position) break;
        this.entries = [...found, ...this.entries];
        this.atStart = line === 1 || startsAtFirst(this.entries);
        this.#trimTail();
        break;
      }
    } catch (error) {
      this.#failed(error);
    }
    this.#busy.earlier = null;
    this.#changed();
  }

  /** Appends what lies between two positions. @param {Entry[]} found @param {number} from @param {number} to */
  async #fill(found, from, to) {
    for (let next = from, n = 0; next < to && n < 20; n += 1) {
      const answer = await this.#ask({ position: next });
      found.push(...answer.lines.filter((entry) => entry.position < to));
      if (answer.next <= next) return;
      next = answer.next;
    }
  }

  /** @param {Lines} answer */
  #totals(answer) {
    this.attempt = answer.attempt;
    this.totalLines = Math.max(answer.totalLines, lastLine(answer.lines));
    this.end = answer.end;
    this.ended = answer.ended;
  }

  /** @param {unknown} error */
  #failed(error) {
    if (this.#closed || !(error instanceof ApiError)) return;
    if (error.status === 0 || error.status >= 500) this.away.value ||= Date.now();
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
    for (const entry of lines) {
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
    if (this.entries.length <= KEEP) return;
    if (showsEnd) this.#trimHead();
    else if (this.atEnd) {
      this.#trimTail();
      this.#changed();
    }
  }

  #trimHead() {
    if (this.entries.length <= KEEP) return;
    this.entries = this.entries.slice(-KEEP);
    this.atStart = false;
  }

  #trimTail() {
    if (this.entries.length <= KEEP) return;
    this.#next = this.entries[KEEP].position;
    this.entries = this.entries.slice(0, KEEP);
    if (this.atEnd) this.#reached(false);
  }

  #changed() {
    if (this.#frame || this.#closed) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.version.value += 1;
    });
  }
}

/** Nothing is behind it yet: an open line is the last one. @param {Lines} answer */
function reachesEnd({ lines, next, end }) {
  const last = lines.at(-1);
  return next >= end || last === undefined || ("open" in last && last.open === true);
}

/** @param {Entry[]} entries */
const startsAtFirst = (entries) => entries[0] !== undefined && "line" in entries[0] && entries[0].line === 1 && !entries[0].continues;

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
