// The lines of all nodes of a Run, merged by the operator: a window of several thousand, and the stream of what comes.
//
// Lines have no number among all: a cursor says where a window begins and ends. So entries are kept in chunks between two
// cursors, and dropped by whole chunks.

import { signal } from "./vendor/signals.js";
import { ApiError, askUntil, EventStream, isPassing, search } from "./api.js";

/** @typedef {import("./types.js").Merged} Merged */
/** @typedef {import("./log-source.js").Source} Source */
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
export class MergedSource {
  #logs;
  #abort = new AbortController();
  /** @type {{more: Promise<void> | null, earlier: Promise<void> | null}} */
  #busy = { more: null, earlier: null };
  #turn = 0;
  #frame = 0;
  #closed = false;
  /** @type {Chunk[]} */
  #chunks = [];
  /** By node, Attempt and position: a line whose end was not there comes again. @type {Map<string, Merged>} */
  #known = new Map();

  /** @type {Merged[]} */
  entries = [];
  atStart = false;
  atEnd = false;
  ended = false;
  loaded = false;
  near = 300;
  /** Lines that have come by the stream. */
  arrived = 0;
  /** Output that came after what was written later. @type {Merged[]} */
  late = [];
  /** @type {{node: string, attempt: number, offsetMillis?: number}[]} */
  nodes = [];

  version = signal(0);
  error = signal(/** @type {ApiError | null} */ (null));
  /** @type {import("./vendor/signals.js").Signal<EventStream | null>} */
  stream = signal(null);
  away = signal(0);

  /** @param {Logs} logs */
  constructor(logs) {
    this.#logs = logs;
  }

  close() {
    this.#closed = true;
    this.#abort.abort();
    this.stream.peek()?.close();
    cancelAnimationFrame(this.#frame);
  }

  get extent() {
    return this.entries.length;
  }

  get totalLines() {
    return this.arrived;
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
    const turn = this.#turn;
    const isWanted = (/** @type {unknown} */ error) => {
      this.#failed(error);
      return this.loaded && turn === this.#turn;
    };
    const answer = await askUntil(this.#path({ ...query, ...(query.tail ? {} : { count: WINDOW }), ...(this.#logs.until ? { until: this.#logs.until } : {}) }), this.#abort.signal, isWanted);
    this.away.value = 0;
    this.nodes = answer.nodes;
    return answer;
  }

  /** The end. */
  async tail() {
    await this.#begin({ tail: WINDOW }, true);
  }

  /** The beginning: no other place has a number. */
  async line() {
    await this.#begin({ since: this.#logs.since ?? "1970-01-01T00:00:00Z" }, false);
  }

  /** From a time. @param {string} since */
  async since(since) {
    await this.#begin({ since }, false);
    await this.earlier();
  }

  /** @param {Record<string, string | number>} query @param {boolean} isTail */
  async #begin(query, isTail) {
    const turn = (this.#turn += 1);
    try {
      const answer = await this.#ask(query);
      if (turn !== this.#turn) return;
      this.#known.clear();
      this.#chunks = [{ entries: [], before: answer.before, next: answer.next }];
      this.atStart = query.since !== undefined && query.since === this.#logs.since;
      this.#take(answer.lines, this.#chunks[0], 0);
      this.loaded = true;
      this.error.value = null;
      this.ended = answer.ended || this.#logs.until !== undefined;
      this.#reached(isTail || answer.ended || answer.lines.length === 0);
    } catch (error) {
      if (turn === this.#turn) this.#failed(error);
    }
    this.#rebuild();
  }

  /** Puts lines at the end of a chunk; their places are counted from one. @param {Merged[]} lines @param {Chunk} chunk @param {number} place */
  #take(lines, chunk, place) {
    const since = this.#logs.since ? Date.parse(this.#logs.since) * 1000 : -Infinity;
    for (const line of lines) {
      const key = `${line.node}/${line.attempt}/${line.position}`;
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
    return (this.#busy.more ??= this.#more());
  }

  /** @returns {Promise<void>} */
  earlier() {
    if (this.atStart || this.#chunks.length === 0) return Promise.resolve();
    return (this.#busy.earlier ??= this.#earlier());
  }

  async #more() {
    const turn = this.#turn;
    const from = this.#next;
    try {
      const answer = await this.#ask({ from });
      // Meanwhile the end may have been dropped.
      if (turn === this.#turn && from === this.#next) {
        const chunk = { entries: [], before: from, next: answer.next };
        this.#take(answer.lines, chunk, this.entries.at(-1)?.position ?? 0);
        this.#chunks.push(chunk);
        this.ended = answer.ended || this.#logs.until !== undefined;
        this.#trim(true);
        this.#reached(answer.ended || answer.lines.length === 0);
      }
    } catch (error) {
      this.#failed(error);
    }
    this.#busy.more = null;
    this.#rebuild();
  }

  async #earlier() {
    const turn = this.#turn;
    const to = this.#chunks[0].before;
    try {
      const answer = await this.#ask({ to });
      if (turn === this.#turn && to === this.#chunks[0].before) {
        const chunk = { entries: [], before: answer.before, next: to };
        this.atStart = answer.lines.length === 0;
        this.#take(answer.lines, chunk, (this.entries[0]?.position ?? 0) - answer.lines.length - 1);
        this.#chunks.unshift(chunk);
        this.#trim(false);
      }
    } catch (error) {
      this.#failed(error);
    }
    this.#busy.earlier = null;
    this.#rebuild();
  }

  get #next() {
    return this.#chunks.at(-1)?.next ?? "";
  }

  /** @param {unknown} error */
  #failed(error) {
    if (this.#closed || !(error instanceof ApiError)) return;
    if (isPassing(error)) this.away.value ||= Date.now();
    if (!this.loaded) this.error.value = error;
  }

  /** @param {boolean} whether */
  #reached(whether) {
    this.atEnd = whether;
    this.stream.peek()?.close();
    this.stream.value = null;
    if (whether && !this.ended && !this.#closed) this.#follow();
  }

  #follow() {
    const from = this.#next;
    /** @type {EventStream} */
    const stream = new EventStream(
      () => this.#path({ from: stream?.lastId ?? from }, "/events"),
      ({ event, data, id }) => {
        if (this.stream.peek() !== stream) return;
        if (event === "end") {
          this.ended = true;
          stream.close();
          this.stream.value = null;
        } else if (event === "lines") this.#append(JSON.parse(data).lines, id ?? this.#next);
        this.#changed();
      },
    );
    this.stream.value = stream;
  }

  /** @param {Merged[]} lines @param {string} next */
  #append(lines, next) {
    let chunk = /** @type {Chunk} */ (this.#chunks.at(-1));
    if (chunk.entries.length >= CHUNK) this.#chunks.push((chunk = { entries: [], before: chunk.next, next }));
    chunk.next = next;
    const count = chunk.entries.length;
    this.#take(lines, chunk, this.entries.at(-1)?.position ?? 0);
    const fresh = chunk.entries.slice(count);
    this.entries.push(...fresh);
    this.arrived += fresh.length;
    this.late = [...this.late, ...fresh.filter(({ late }) => late)].slice(-KEEP);
  }

  /** Follows with a bounded number of lines: old ones go while the end is shown, new ones wait while it is not. @param {boolean} showsEnd */
  settle(showsEnd) {
    if (!showsEnd && !this.atEnd) return;
    if (!this.#trim(showsEnd)) return;
    if (!showsEnd) {
      this.#reached(false);
      this.#changed();
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
    this.#known = new Map(this.entries.map((entry) => [`${entry.node}/${entry.attempt}/${entry.at}`, entry]));
  }

  #rebuild() {
    this.#flatten();
    this.#changed();
  }

  #changed() {
    if (this.#frame || this.#closed) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.version.value += 1;
    });
  }
}
