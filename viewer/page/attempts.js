// When each Attempt of an Execution ran. Pure.

import { at, lower, span } from "./format.js";
import { hasEnded, stateText } from "./states.js";

/** @typedef {import("./types.js").Execution} Execution */
/** @typedef {{attempt: number, state: string, from: number, to: number, text: string}} Bar */
/** @typedef {Map<string, import("./types.js").Attempt[]>} Attempts By node. */

/** Whether it has an Attempt beside the one that a list shows: one before it, or one that follows. @param {Execution} one */
export const wasTried = ({ attempt, state }) => attempt > 1 || (attempt === 1 && state === "Pending");

/** When it ran, oldest first; of the latest Attempt only, while the others are not known. @param {Execution} one @param {Attempts} attempts @param {number} time @returns {Bar[]} */
export function barsOf(one, attempts, time) {
  const all = attempts.get(one.node) ?? [];
  // What the list shows is newer.
  const known = [...all.filter(({ attempt }) => attempt < one.attempt || one.state === "Pending"), ...(one.state === "Pending" && all.length > 0 ? [] : [one])];
  return known.filter(({ startedAt }) => startedAt).map(({ attempt, state, exitCode, startedAt, endedAt }) => {
    const from = at(startedAt);
    const to = at(endedAt) || (hasEnded(state) ? from : Math.max(from, time));
    return { attempt, state, from, to, text: `Attempt ${attempt}: ${lower(stateText({ state, exitCode }))}, ${span(to - from)}` };
  });
}
