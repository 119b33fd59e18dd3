// A search through one log, or those of a Run. The operator does it where the bytes are; hits come as they are found.

import { useEffect, useRef, useState } from "./vendor/hooks.js";
import { signal } from "./vendor/signals.js";
import { ApiError, askLines, search } from "./api.js";

/** @typedef {import("./types.js").Entry} Entry */
/** @typedef {import("./types.js").Line & {match: string}} Hit A long line has some of its text only. */

/** Hits that are kept: nobody walks through more. */
const MOST = 20_000;

/** How often a log that grows is searched on, ms. */
const AGAIN_MS = 3000;

/**
 * The hits in their order, which are also the entries of a view of matches only.
 *
 * @template {Hit} H
 * @implements {Source}
 */
export class Hits {
  #abort = new AbortController();
  #timer = 0;
  /** Found, and not in order yet. @type {H[]} */
  #fresh = [];

  /** @type {H[]} */
  hits = [];
  /** How much was searched, 0 to 1. */
  progress = 0;
  complete = false;
  /** What is wrong with the expression. */
  wrong = "";
  version = signal(0);
  atStart = true;
  atEnd = true;
  near = 0;

  /** Where it was searched, in the words of the API. @protected @param {string | number} _from @returns {string} */
  path(_from) {
    return "";
  }

  /** A hit of an answer; none if it is known, or not within the times. @protected @param {any} _found @returns {H | null} */
  hitFrom(_found) {
    return null;
  }

  /** From where it goes on behind what was reported. @protected @param {any} _found @param {string | number} from */
  next(_found, from) {
    return from;
  }

  /** @protected @param {any} _progress */
  share(_progress) {
    return 1;
  }

  /** Whether nothing behind it is wanted. @protected @param {string | number} _from */
  isBeyond(_from) {
    return false;
  }

  /** Whether no more will be written. */
  get isWhole() {
    return true;
  }

  /** Below zero if the first is before the second. @param {any} _a @param {any} _b @returns {number} */
  order(_a, _b) {
    return 0;
  }

  /** The hit in a line. @param {Entry} _entry @returns {H | undefined} */
  hitIn(_entry) {
    return undefined;
  }

  get entries() {
    return this.hits;
  }

  get extent() {
    return this.hits.length;
  }

  get ended() {
    return this.isWhole && this.complete;
  }

  /** @param {Entry} entry */
  ordinal(entry) {
    return this.indexOf(entry) + 1;
  }

  /** @param {number} ordinal @returns {Entry | undefined} */
  entryAt(ordinal) {
    return this.hits[ordinal - 1];
  }

  settle() {}

  stay() {}

  async more() {}

  async earlier() {}

  async tail() {
    return true;
  }

  async line() {
    return true;
  }

  close() {
    this.#abort.abort();
    clearTimeout(this.#timer);
  }

  /** Until all is searched, and again while it grows. @protected @param {string | number} start @param {number} again ms */
  async run(start, again = AGAIN_MS) {
    let from = start;
    if (this.#abort.signal.aborted) return;
    try {
      do {
        this.complete = false;
        await askLines(this.path(from), this.#abort.signal, (found) => {
          if (found.kind === "hit") return this.#add(found);
          from = this.next(found, from);
          if (found.kind === "progress") this.progress = this.share(found);
          if (found.kind === "end") this.complete = found.complete;
          this.#arrange();
        });
        this.wrong = "";
      } while (!this.complete && this.hits.length < MOST && !this.isBeyond(from));
    } catch (error) {
      if (this.#abort.signal.aborted) return;
      const body = error instanceof ApiError ? error.body : null;
      this.wrong = body?.field === "pattern" ? (body.allowed ?? body.message).replace(/^.*\): /s, "") : body?.message ?? String(error);
      this.complete = true;
      this.#arrange();
      if (body?.field === "pattern" || (error instanceof ApiError && error.status === 404)) return;
    }
    if (this.isBeyond(from)) this.complete = true;
    if (!this.isWhole && this.hits.length < MOST && !this.#abort.signal.aborted) this.#timer = setTimeout(() => void this.run(from, again), again);
  }

  /** @param {any} found */
  #add(found) {
    const hit = this.hits.length + this.#fresh.length < MOST ? this.hitFrom(found) : null;
    if (hit) this.#fresh.push(hit);
  }

  /** Of two streams an earlier line may end later, and logs are searched one after the other. */
  #arrange() {
    if (this.#fresh.length > 0) {
      this.hits = [...this.hits, ...this.#fresh].sort((a, b) => this.order(a, b));
      this.#fresh = [];
      this.arranged();
    }
    this.version.value += 1;
  }

  /** @protected */
  arranged() {}

  /** The hit at or behind a place, or the last one. @param {any} place @returns {H | undefined} */
  nearest(place) {
    return this.hits[this.indexOf(place)] ?? this.hits.at(-1);
  }

  /** The first hit at or behind a place. @param {any} place */
  indexOf(place) {
    let low = 0;
    let high = this.hits.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.order(this.hits[middle], place) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** @typedef {import("./log-feed.js").Source} Source */

/** @extends {Hits<Hit>} */
export class LogSearch extends Hits {
  #source;
  #pattern;
  /** @type {Map<number, Hit>} */
  #byPosition = new Map();

  /** @param {import("./log-source.js").LogSource} source its bounds are those of the search @param {string} pattern */
  constructor(source, pattern) {
    super();
    this.#source = source;
    this.#pattern = pattern;
    // Without them, the log itself says what is wrong.
    source.bounds().then(() => this.run(source.floor), () => {});
  }

  /** @override @protected @param {string | number} from */
  path(from) {
    const { uid, run, node, attempt, stream } = this.#source.log;
    return `executions/${uid}/${run}/${encodeURIComponent(node)}/search${search({ pattern: this.#pattern, from, limit: 10_000, attempt, stream: stream === "both" ? null : stream })}`;
  }

  /** @override @protected @param {{position: number}} found */
  next({ position }) {
    return position;
  }

  /** @override @protected @param {{position: number, end: number}} progress */
  share({ position, end }) {
    return end > 0 ? position / end : 1;
  }

  /** @override @protected @param {string | number} from */
  isBeyond(from) {
    return Number(from) >= this.#source.ceiling;
  }

  /** @override */
  get isWhole() {
    return this.#source.ended;
  }

  /** @override @param {{position: number}} a @param {{position: number}} b */
  order(a, b) {
    return a.position - b.position;
  }

  /** @override @param {Entry} entry */
  hitIn({ position }) {
    return this.#byPosition.get(position);
  }

  /** @override @protected @param {{line: number, position: number, stream: "stdout" | "stderr", atMicros: number, text: [string, string, string]}} found */
  hitFrom({ line, position, stream, atMicros, text }) {
    if (this.#byPosition.has(position) || position < this.#source.floor || position >= this.#source.ceiling) return null;
    const hit = { line, position, stream, atMicros, text: text.join(""), match: text[1] };
    this.#byPosition.set(position, hit);
    return hit;
  }
}

/**
 * How a reader goes through hits. `top` is the first line on the screen, from where the first step begins.
 *
 * @template P
 * @param {Hits<any> | null} find @param {boolean} matches whether only they are shown @param {P | null} top @param {(place: P) => void} reveal
 */
export function useHits(find, matches, top, reveal) {
  const [hit, setHit] = useState(/** @type {P | null} */ (null));
  // From the matches back to where one of them is, and the other way.
  const turned = useRef(matches);
  const context = useRef(/** @type {P | null} */ (null));
  useEffect(() => () => find?.close(), [find]);
  useEffect(() => {
    if (turned.current === matches) return;
    turned.current = matches;
    if (context.current !== null) reveal(context.current);
  }, [matches]);
  find?.version.value;
  const jump = (/** @type {P} */ place) => {
    setHit(place);
    reveal(place);
  };
  const step = (/** @type {number} */ by) => {
    const place = hit ?? top;
    if (!find || find.hits.length === 0) return;
    // The hits may be there before the lines.
    if (place === null) return jump(find.hits[by < 0 ? find.hits.length - 1 : 0]);
    const at = find.indexOf(place);
    // From a place that is none of the hits, the next one is that behind it.
    const isHit = hit !== null && at < find.hits.length && find.order(find.hits[at], hit) === 0;
    const next = isHit || by < 0 ? at + by : at;
    jump(find.hits[(next + find.hits.length) % find.hits.length]);
  };
  /** What is to be seen when it is the matches only, or all lines again. */
  const keep = (/** @type {P | null} */ place) => {
    context.current = place;
    if (place !== null) setHit(place);
  };
  return { hit, jump, step, keep };
}
