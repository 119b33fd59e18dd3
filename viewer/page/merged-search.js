// A search through the logs of all nodes of a Run. They are searched one after the other, and their hits stand by time.

import { search } from "./api.js";
import { Hits } from "./log-search.js";

/** @typedef {import("./types.js").Merged & import("./log-search.js").Hit & {time: number}} MergedHit `time` never goes back within a log. */

/** How often logs that grow are searched on, ms: there may be hundreds. */
const AGAIN_MS = 10_000;

/** @param {{node: string, attempt: number, at: number}} line */
const keyOf = ({ node, attempt, at }) => `${node}/${attempt}/${at}`;

/** @extends {Hits<MergedHit>} */
export class MergedSearch extends Hits {
  #source;
  #logs;
  #pattern;
  /** @type {Map<string, MergedHit>} */
  #known = new Map();
  /** The time of the last hit of each log. @type {Map<string, number>} */
  #times = new Map();

  /** Nodes that have hits. @type {Set<string>} */
  nodes = new Set();

  /** @param {{ended: boolean}} source @param {import("./merged-source.js").Logs} logs @param {string} pattern */
  constructor(source, logs, pattern) {
    super();
    this.#source = source;
    this.#logs = logs;
    this.#pattern = pattern;
    void this.run("", AGAIN_MS);
  }

  /** @override @protected @param {string | number} from */
  path(from) {
    const { uid, run, nodes, stream } = this.#logs;
    return `runs/${uid}/${run}/search${search({ pattern: this.#pattern, from, limit: 10_000, nodes: nodes.join(","), stream: stream === "both" ? null : stream })}`;
  }

  /** @override @protected @param {{next?: string}} found @param {string | number} from */
  next({ next }, from) {
    return next ?? from;
  }

  /** @override @protected @param {{searched: number, size: number}} progress */
  share({ searched, size }) {
    return size > 0 ? searched / size : 1;
  }

  /** @override */
  get isWhole() {
    return this.#source.ended;
  }

  /** As lines are merged. @override @param {MergedHit} a @param {MergedHit} b */
  order(a, b) {
    const [time, other] = [a, b].map(({ time: known, atMicros }) => known ?? atMicros ?? 0);
    if (time !== other) return time - other;
    if (a.node !== b.node) return a.node < b.node ? -1 : 1;
    return a.attempt - b.attempt || a.at - b.at;
  }

  /** @override @param {any} entry */
  hitIn(entry) {
    return this.#known.get(keyOf(entry));
  }

  /** @override @protected @param {{node: string, attempt: number, line: number, position: number, stream: "stdout" | "stderr", atMicros: number, text: [string, string, string]}} found */
  hitFrom({ node, attempt, line, position, stream, atMicros, text }) {
    const { since, until } = this.#logs;
    const key = keyOf({ node, attempt, at: position });
    const isOutside = (since && atMicros < Date.parse(since) * 1000) || (until && atMicros >= Date.parse(until) * 1000);
    if (this.#known.has(key) || (isOutside && atMicros > 0)) return null;
    const log = `${node}/${attempt}`;
    const time = Math.max(atMicros, this.#times.get(log) ?? 0);
    this.#times.set(log, time);
    const hit = { node, attempt, line, at: position, position: 0, stream, atMicros, time, text: text.join(""), match: text[1] };
    this.#known.set(key, hit);
    this.nodes.add(node);
    return hit;
  }

  /** In a view of matches only, the place is the position. @override @protected */
  arranged() {
    this.hits.forEach((hit, index) => (hit.position = index + 1));
  }
}
