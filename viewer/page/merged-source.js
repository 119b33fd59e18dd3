// The lines of all nodes of a Run, merged by the operator: a window of several thousand, and the stream of what comes.
//
// Lines have no number among all: a cursor says where a window begins and ends. So entries are kept in chunks between two
// cursors, and dropped by whole chunks.

import { search } from "./api.js";
import { LogFeed } from "./log-feed.js";

/** @typedef {import("./types.js").Merged} Merged */
/** @typedef {import("./log-feed.js").Source} Source */
/** @typedef {{entries: Merged[], before: string, next: string}} Chunk */
/** @typedef {{uid: string, run: number, nodes: string[], stream: string, since?: string, until?: string}} Logs */

/** Lines that are asked for at once. */
const WINDOW = 1000;

/** Most lines that are kept, and most characters of their text. */
const KEEP = 6000;
const KEEP_TEXT = 24_000_000;

/** A chunk of a stream grows up to this. */
const CHUNK = 500;

/** @implements {Source} */
export class MergedSource extends LogFeed {
  #logs;
  /** @type {Chunk[]} */
  #chunks = [];
  /** By node, Attempt and position: a line whose end was not there comes again. @type {Map<string, Merged>} */
  #known = new Map();

  /** @type {Merged[]} */
  entries = [];
  near = 300;
  /** Lines that have come by the stream. */
  totalLines = 0;
  /** Lines that came after what was written later, and those whose end did. @type {Merged[]} */
  late = [];
  /** @type {{node: string, attempt: number, offsetMillis?: number}[]} */
  nodes = [];

  /** @param {Logs} logs */
  constructor(logs) {
    super();
    this.#logs = logs;
  }

  get extent() {
    return this.entries.length;
  }

  /** @param {import("./types.js").Entry} entry */
  ordinal({ position }) {
    let low = 0;
    let high = this.entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.entries[middle].position < position) low = middle + 1;
      else high = middle;
    }
    return low + 1;
  }

  /** @param {number} ordinal @returns {Merged | undefined} */
  entryAt(ordinal) {
    return this.entries[Math.min(this.entries.length, Math.max(1, ordinal)) - 1];
  }

  /** @param {Record<string, string | number>} query @param {string} [more] */
  #path(query, more = "") {
    const { uid, run, nodes, stream } = this.#logs;
    return `runs/${uid}/${run}/lines${more}${search({ nodes: nodes.join(","), stream: stream === "both" ? undefined : stream, ...query })}`;
  }

  /** @param {Record<string, string | number>} query */
  async #ask(query) {
    const answer = await this.askWhileWanted(this.#path({ ...query, ...(query.tail ? {} : { count: WINDOW }), ...(this.#logs.until ? { until: this.#logs.until } : {}) }));
    this.nodes = answer.nodes;
    return answer;
  }

  /** The end. */
  tail() {
    return this.#begin({ tail: WINDOW }, true);
  }

  /** The beginning: no other place has a number. */
  line() {
    return this.#begin({ since: this.#logs.since ?? "1970-01-01T00:00:00Z" }, false);
  }

  /** From a time. @param {string} since */
  async since(since) {
    const isShown = await this.#begin({ since }, false);
    if (isShown) await this.earlier();
    return isShown;
  }

  /** @param {Record<string, string | number>} query @param {boolean} isTail */
  #begin(query, isTail) {
    return this.begin(async (isLate) => {
      const answer = await this.#ask(query);
      if (isLate()) return;
      this.#known.clear();
      this.#chunks = [{ entries: [], before: answer.before, next: answer.next }];
      this.atStart = query.since !== undefined && query.since === this.#logs.since;
      this.#take(answer.lines, this.#chunks[0], 0);
      this.#noteEnd(answer);
      this.#reached(isTail || answer.ended || answer.lines.length === 0);
      this.#flatten();
    });
  }

  /** Only an answer that reaches the ends of the logs says that they have ended; then they stay so. @param {{ended: boolean}} answer */
  #noteEnd({ ended }) {
    this.ended ||= ended || this.#logs.until !== undefined;
  }

  /** Puts lines at the end of a chunk; their places are counted from one. @param {Merged[]} lines @param {Chunk} chunk @param {number} place */
  #take(lines, chunk, place) {
    const since = this.#logs.since ? Date.parse(this.#logs.since) * 1000 : -Infinity;
    for (const line of lines) {
      const key = keyOf(line, line.position);
      const known = this.#known.get(key);
      if (known) {
        Object.assign(known, { ...line, open: "open" in line ? line.open : undefined, position: known.position });
        continue;
      }
      if ((line.atMicros ?? since) < since && !line.late) {
        this.atStart = true;
        continue;
      }
      const entry = { ...line, at: line.position, position: (place += 1) };
      this.#known.set(key, entry);
      chunk.entries.push(entry);
    }
  }

  /** @returns {Promise<void>} */
  more() {
    if (this.atEnd || this.#chunks.length === 0) return Promise.resolve();
    return this.extend("more", async (isLate) => {
      const from = this.#next;
      const answer = await this.#ask({ from });
      // Meanwhile the end may have been dropped.
      if (isLate() || from !== this.#next) return;
      const chunk = { entries: [], before: from, next: answer.next };
      this.#take(answer.lines, chunk, this.entries.at(-1)?.position ?? 0);
      this.#chunks.push(chunk);
      this.#noteEnd(answer);
      this.#trim(true);
      this.#reached(answer.ended || answer.lines.length === 0);
      this.#flatten();
    });
  }

  /** @returns {Promise<void>} */
  earlier() {
    if (this.atStart || this.#chunks.length === 0) return Promise.resolve();
    return this.extend("earlier", async (isLate) => {
      const to = this.#chunks[0].before;
      const answer = await this.#ask({ to });
      if (isLate() || to !== this.#chunks[0].before) return;
      const chunk = { entries: [], before: answer.before, next: to };
      this.atStart = answer.lines.length === 0;
      this.#take(answer.lines, chunk, (this.entries[0]?.position ?? 0) - answer.lines.length - 1);
      this.#chunks.unshift(chunk);
      this.#trim(false);
      this.#flatten();
    });
  }

  get #next() {
    return this.#chunks.at(-1)?.next ?? "";
  }

  /** @param {boolean} whether */
  #reached(whether) {
    this.atEnd = whether;
    this.unfollow();
    if (!whether || this.ended || this.closed) return;
    this.follow(this.#next, (from) => this.#path({ from }, "/events"), ({ lines }, id) => this.#append(lines, id ?? this.#next));
  }

  /** @param {Merged[]} lines @param {string} next */
  #append(lines, next) {
    let chunk = /** @type {Chunk} */ (this.#chunks.at(-1));
    if (chunk.entries.length >= CHUNK) this.#chunks.push((chunk = { entries: [], before: chunk.next, next }));
    chunk.next = next;
    const count = chunk.entries.length;
    const ended = lines.flatMap((line) => {
      const known = this.#known.get(keyOf(line, line.position));
      return known && isOpen(known) && !isOpen(line) ? [known] : [];
    });
    this.#take(lines, chunk, this.entries.at(-1)?.position ?? 0);
    const fresh = chunk.entries.slice(count);
    this.entries.push(...fresh);
    this.totalLines += fresh.length;
    this.late = [...this.late, ...ended, ...fresh.filter(({ late }) => late)].slice(-KEEP);
  }

  /** Follows with a bounded number of lines: old ones go while the end is shown, new ones wait while it is not. @param {boolean} showsEnd */
  settle(showsEnd) {
    if (!showsEnd && !this.atEnd) return;
    if (!this.#trim(showsEnd)) return;
    if (!showsEnd) {
      this.#reached(false);
      this.changed();
    }
    this.#flatten();
  }

  /** Drops chunks that are too many, from one end. @param {boolean} head @returns {boolean} whether there were any */
  #trim(head) {
    const size = (/** @type {Chunk} */ { entries }) => entries.reduce((sum, entry) => sum + ("text" in entry ? entry.text.length : 0), 0);
    const lines = this.#chunks.reduce((sum, { entries }) => sum + entries.length, 0);
    if (lines <= KEEP && this.#chunks.reduce((sum, chunk) => sum + size(chunk), 0) <= KEEP_TEXT) return false;
    let rest = KEEP;
    let text = KEEP_TEXT;
    const kept = (head ? [...this.#chunks].reverse() : this.#chunks).filter((chunk, index) => {
      rest -= chunk.entries.length;
      text -= size(chunk);
      return index === 0 || (rest >= 0 && text >= 0);
    });
    if (kept.length === this.#chunks.length) return false;
    this.#chunks = head ? kept.reverse() : kept;
    if (head) this.atStart = false;
    else this.atEnd = false;
    return true;
  }

  #flatten() {
    this.entries = this.#chunks.flatMap(({ entries }) => entries);
    this.#known = new Map(this.entries.map((entry) => [keyOf(entry, entry.at), entry]));
  }
}

/** @param {Merged} line @param {number} at its position in the log of its node */
const keyOf = ({ node, attempt }, at) => `${node}/${attempt}/${at}`;

/** @param {Merged} line */
const isOpen = (line) => "open" in line && line.open === true;
