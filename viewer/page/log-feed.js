// How the lines of a log come to the page, be they of one node or of all: a window that is asked for, more of it at either
// end, and the stream of what is written. What was asked before a newer window was wanted is dropped when it comes.

import { signal } from "./vendor/signals.js";
import { ApiError, askUntil, EventStream, isPassing } from "./api.js";

/** @typedef {import("./types.js").Entry} Entry */

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
 * @property {() => void} stay
 * @property {() => Promise<void>} more
 * @property {() => Promise<void>} earlier
 * @property {() => Promise<boolean>} tail whether the end is what is shown now
 * @property {(ordinal: number) => Promise<boolean>} line whether that line is
 */

export class LogFeed {
  #abort = new AbortController();
  /** One request for more at a time, in each direction. @type {{more: Promise<void> | null, earlier: Promise<void> | null}} */
  #busy = { more: null, earlier: null };
  #turn = 0;
  #isOpening = false;
  #frame = 0;

  closed = false;
  /** Whether the entries begin with the first line, and end with the last. */
  atStart = false;
  atEnd = false;
  ended = false;
  /** Whether anything has been read. */
  loaded = false;

  /** Changes at most once a frame, and with each new window. */
  version = signal(0);
  error = signal(/** @type {ApiError | null} */ (null));
  /** @type {import("./vendor/signals.js").Signal<EventStream | null>} */
  stream = signal(null);
  /** Since when a question without a stream has had no answer, 0 while they have. */
  away = signal(0);

  close() {
    this.closed = true;
    this.#abort.abort();
    this.stream.peek()?.close();
    cancelAnimationFrame(this.#frame);
  }

  /** Until there is an answer, as long as it is wanted. @protected @param {string} path */
  async askWhileWanted(path) {
    const turn = this.#turn;
    const isWanted = (/** @type {unknown} */ error) => {
      this.failed(error);
      return this.loaded && turn === this.#turn;
    };
    const answer = await askUntil(path, this.#abort.signal, isWanted);
    this.away.value = 0;
    return answer;
  }

  /** A window that replaces what was there; says whether it does. @protected @param {(isLate: () => boolean) => Promise<void>} read */
  async begin(read) {
    const turn = (this.#turn += 1);
    const isLate = () => turn !== this.#turn;
    let isRead = false;
    this.#isOpening = true;
    try {
      await read(isLate);
      isRead = !isLate();
      if (isRead) {
        this.loaded = true;
        this.error.value = null;
      }
    } catch (error) {
      if (!isLate()) this.failed(error);
    }
    if (!isLate()) this.#isOpening = false;
    // At once: what is asked to be shown next is a place in this window, not in the one before.
    if (isRead) this.version.value += 1;
    else this.changed();
    return isRead;
  }

  /** What is shown is wanted: not the window that was asked for and has not come. */
  stay() {
    if (!this.#isOpening || !this.loaded) return;
    this.#turn += 1;
    this.#isOpening = false;
  }

  /** More at an end; `isLate` says whether there is another window meanwhile. @protected @param {"more" | "earlier"} end @param {(isLate: () => boolean) => Promise<void>} read */
  extend(end, read) {
    const turn = this.#turn;
    const done = () => {
      this.#busy[end] = null;
      this.changed();
    };
    return (this.#busy[end] ??= read(() => turn !== this.#turn).catch((error) => this.failed(error)).then(done));
  }

  /** @protected @param {unknown} error */
  failed(error) {
    if (this.closed || !(error instanceof ApiError)) return;
    if (isPassing(error)) this.away.value ||= Date.now();
    if (!this.loaded) this.error.value = error;
  }

  /** The stream of what is written behind a place. @protected @param {string | number} from @param {(from: string | number) => string} path @param {(lines: any, id: string | null) => void} onLines @param {(end: any) => void} [onEnd] */
  follow(from, path, onLines, onEnd) {
    /** @type {EventStream} */
    const stream = new EventStream(
      () => path(stream?.lastId ?? from),
      ({ event, data, id }) => {
        if (this.stream.peek() !== stream) return;
        if (event === "end") {
          this.ended = true;
          onEnd?.(data ? JSON.parse(data) : {});
          this.unfollow();
        } else if (event === "lines") onLines(JSON.parse(data), id);
        this.changed();
      },
    );
    this.stream.value = stream;
  }

  /** @protected */
  unfollow() {
    this.stream.peek()?.close();
    this.stream.value = null;
  }

  /** @protected */
  changed() {
    if (this.#frame || this.closed) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.version.value += 1;
    });
  }
}
