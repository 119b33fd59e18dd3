// How each state and Outcome is shown: tone, icon, word, and its place among others. Pure.

import { lower, spaced } from "./format.js";

/** @typedef {"ok" | "run" | "bad" | "late" | "lost" | "off"} Tone */
/** @typedef {{tone: Tone, icon: string, word: string, rank: number, spin?: boolean}} Look */
/** @typedef {{name: string, look: Look, count: number}} Share */

/** @type {Record<string, [Tone, string, number]>} */
const TABLE = {
  Failed: ["bad", "failed", 0],
  OomKilled: ["bad", "oom", 1],
  Signaled: ["bad", "failed", 2],
  StartFailed: ["bad", "failed", 3],
  CancelFailed: ["bad", "failed", 4],
  Rejected: ["bad", "failed", 4],
  TimedOut: ["late", "timeout", 5],
  IdleTimedOut: ["late", "timeout", 6],
  StartTimedOut: ["late", "timeout", 7],
  Interrupted: ["late", "late", 8],
  Lost: ["lost", "lost", 9],
  Running: ["run", "running", 10],
  Dispatched: ["off", "waiting", 11],
  WaitingForNode: ["off", "waiting", 12],
  Pending: ["off", "waiting", 13],
  Cancelled: ["off", "cancelled", 14],
  Refused: ["off", "refused", 15],
  Skipped: ["off", "cancelled", 16],
  NotStarted: ["off", "cancelled", 17],
  Suspended: ["off", "paused", 18],
  Terminating: ["off", "cancelled", 18],
  Succeeded: ["ok", "ok", 19],
  Complete: ["ok", "ok", 19],
};

/** @param {string | null | undefined} state @returns {Look} */
export function look(state) {
  const name = state || "Pending";
  const [tone, icon, rank] = TABLE[name] ?? ["off", "waiting", 18];
  return { tone, icon, word: WORDS[name] ?? spaced(name), rank, ...(name === "Running" ? { spin: true } : {}) };
}

/** @type {Record<string, string>} */
const WORDS = { Pending: "Waiting", WaitingForNode: "Waiting for node" };

/** Of a Task: its Run has been complete where every node succeeded. @param {string | null | undefined} phase @returns {Look} */
export function taskLook(phase) {
  return phase === "Succeeded" ? { ...look("Complete"), word: "Complete" } : look(phase);
}

/** Did not succeed. @param {string} state */
export const isProblem = (state) => look(state).rank < 10;

/** Has an Outcome. @param {string} state */
export const hasEnded = (state) => !["Pending", "WaitingForNode", "Dispatched", "Running"].includes(state);

/** Counts by state, problems first. @param {Iterable<string>} states @returns {Share[]} */
export function shares(states) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const state of states) counts.set(state, (counts.get(state) ?? 0) + 1);
  return [...counts].map(([name, count]) => ({ name, look: look(name), count })).sort((a, b) => a.look.rank - b.look.rank);
}

/**
 * The same from the counts of a Task's status, where the Executions are not known.
 *
 * @param {Partial<Record<"succeeded" | "failed" | "unreachable" | "running" | "waiting", number>> | undefined} counts
 * @returns {Share[]}
 */
export function sharesOfCounts(counts) {
  /** @type {[string, number | undefined][]} */
  const all = [
    ["Failed", counts?.failed],
    ["Lost", counts?.unreachable],
    ["Running", counts?.running],
    ["Pending", counts?.waiting],
    ["Succeeded", counts?.succeeded],
  ];
  return all.flatMap(([name, count]) => (count ? [{ name, look: name === "Lost" ? { ...look(name), word: "Unreachable" } : look(name), count }] : []));
}

/** As in a bar: what went wrong, what went well, what is under way. @param {Share[]} list @param {boolean} [goodFirst] */
export function barOrder(list, goodFirst = false) {
  const place = (/** @type {Share} */ { look: { tone, rank } }) => (tone === "ok" ? (goodFirst ? -1 : 9.5) : rank);
  return [...list].sort((a, b) => place(a) - place(b));
}

/** `Failed, exit 100`. @param {{state: string, exitCode?: number | null}} execution */
export function stateText({ state, exitCode }) {
  const { word } = look(state);
  return state === "Failed" && exitCode != null ? `${word}, exit ${exitCode}` : word;
}

/** The words under a bar: the worst that happened. @param {Share[]} list */
export function worst(list) {
  const problems = list.filter((share) => share.look.rank < 10);
  if (problems.length > 0) {
    return { tone: problems[0].look.tone, text: problems.map((share) => `${share.count} ${lower(share.look.word)}`).slice(0, 2).join(", ") };
  }
  const running = list.find((share) => share.name === "Running");
  return running ? { tone: /** @type {const} */ ("off"), text: `${running.count} running` } : null;
}
