// A search through one log. The operator does it where the bytes are; hits come as they are found.

import { signal } from "./vendor/signals.js";
import { ApiError, askLines, search } from "./api.js";

/** @typedef {import("./types.js").Line & {match: string}} Hit A long line has some of its text only. */

/** Hits that are kept: nobody walks through more. */
const MOST = 20_000;

/** How often a log that grows is searched on, ms. */
const AGAIN_MS = 3000;

/** The hits, which are also the entries of a view of matches only. */
export class LogSearch {
  #abort = new AbortController();
  #timer = 0;

  /** In the order of the log. @type {Hit[]} */
  hits = [];
  /** By position, for the rows that are shown. @type {Map<number, Hit>} */
  byPosition = new Map();
  /** How much of the log was searched, 0 to 1. */
  progress = 0;
  complete = false;
  /** What is wrong with the expression. */
  wrong = "";
  version = signal(0);
  /** For the view. */
  atStart = true;
  atEnd = true;
  near = 0;
  #source;

  /** @param {import("./log-source.js").LogSource} source its bounds are those of the search @param {string} pattern */
  constructor(source, pattern) {
    this.#source = source;
    // Without them, the log itself says what is wrong.
    source.bounds().then(() => this.#run(source.log, pattern), () => {});
  }

  get entries() {
    return this.hits;
  }

  get extent() {
    return this.hits.length;
  }

  get ended() {
    return this.#source.ended && this.complete;
  }

  /** @param {import("./types.js").Entry} entry */
  ordinal(entry) {
    return this.indexOf(entry.position) + 1;
  }

  /** @param {number} ordinal @returns {import("./types.js").Entry | undefined} */
  entryAt(ordinal) {
    return this.hits[ordinal - 1];
  }

  settle() {}

  async more() {}

  async earlier() {}

  async tail() {}

  async line() {}

  close() {
    this.#abort.abort();
    clearTimeout(this.#timer);
  }

  /** @param {import("./log-source.js").Log} log @param {string} pattern */
  async #run(log, pattern, start = this.#source.floor) {
    let from = start;
    if (this.#abort.signal.aborted) return;
    try {
      do {
        this.complete = false;
        await askLines(`executions/${log.uid}/${log.run}/${encodeURIComponent(log.node)}/search${search({ pattern, from, limit: 10_000, attempt: log.attempt, stream: log.stream === "both" ? null : log.stream })}`, this.#abort.signal, (found) => {
          if (found.kind === "hit") this.#add(found);
          else from = found.position;
          if (found.kind === "progress") this.progress = found.end > 0 ? found.position / found.end : 1;
          if (found.kind === "end") this.complete = found.complete;
        });
        this.version.value += 1;
      } while (!this.complete && this.hits.length < MOST && from < this.#source.ceiling);
    } catch (error) {
      if (this.#abort.signal.aborted) return;
      const body = error instanceof ApiError ? error.body : null;
      this.wrong = body?.field === "pattern" ? (body.allowed ?? body.message).replace(/^.*\): /s, "") : body?.message ?? String(error);
      this.complete = true;
      this.version.value += 1;
      if (body?.field === "pattern" || (error instanceof ApiError && error.status === 404)) return;
    }
    if (from >= this.#source.ceiling) this.complete = true;
    if (!this.#source.ended && this.hits.length < MOST && !this.#abort.signal.aborted) this.#timer = setTimeout(() => void this.#run(log, pattern, from), AGAIN_MS);
  }

  /** @param {{line: number, position: number, stream: "stdout" | "stderr", atMicros: number, text: [string, string, string]}} found */
  #add({ line, position, stream, atMicros, text }) {
    if (this.byPosition.has(position) || position < this.#source.floor || position >= this.#source.ceiling) return;
    const hit = { line, position, stream, atMicros, text: text.join(""), match: text[1] };
    this.byPosition.set(position, hit);
    // Of two streams, an earlier line may end later.
    if (this.hits.length === 0 || (this.hits.at(-1)?.position ?? 0) < position) this.hits.push(hit);
    else this.hits.splice(this.indexOf(position), 0, hit);
    if (this.hits.length < 200 || this.hits.length % 500 === 0) this.version.value += 1;
  }

  /** The first hit at or behind a position. @param {number} position */
  indexOf(position) {
    let low = 0;
    let high = this.hits.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.hits[middle].position < position) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
