// When each Attempt of an Execution ran. A list of Executions has the latest only: of those that were tried again, the
// others are asked for.

import { useRef } from "./vendor/hooks.js";
import { at, lower, span } from "./format.js";
import { hasEnded, stateText } from "./states.js";
import { ask } from "./api.js";
import { useLoad } from "./load.js";

/** @typedef {import("./types.js").Execution} Execution */
/** @typedef {{attempt: number, state: string, from: number, to: number, text: string}} Bar */
/** @typedef {Map<string, import("./types.js").Attempt[]>} Attempts By node. */

/** Questions at a time. */
const AT_ONCE = 4;

/** @type {Attempts} */
const NONE = new Map();

/** Whether it has an Attempt beside the one that a list shows: one before it, or one that follows. @param {Execution} one */
export const wasTried = ({ attempt, state }) => attempt > 1 || (attempt === 1 && state === "Pending");

/** @param {Execution} one */
const version = ({ node, attempt, state }) => `${node} ${attempt} ${state}`;

/** Those of these Executions, which are a bounded number. @param {string | undefined} uid @param {number} run @param {Execution[]} tried @returns {Attempts} */
export function useAttempts(uid, run, tried) {
  const key = `attempts ${uid}/${run}`;
  const kept = useRef({ key, asked: new Set(), found: NONE });
  const load = async (/** @type {AbortSignal} */ abort) => {
    if (kept.current.key !== key) kept.current = { key, asked: new Set(), found: NONE };
    const { asked, found } = kept.current;
    const next = new Map(found);
    // Each is asked for again when it has changed.
    const waiting = tried.filter((one) => !asked.has(version(one)));
    const work = async () => {
      for (let one = waiting.shift(); one; one = waiting.shift()) {
        const answer = await ask(`executions/${uid}/${run}/${encodeURIComponent(one.node)}`, { signal: abort });
        next.set(one.node, answer.attempts ?? []);
        asked.add(version(one));
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    return (kept.current.found = next);
  };
  const { data } = useLoad(uid && tried.length > 0 ? key : null, load, { version: tried.map(version).join() });
  return data ?? NONE;
}

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
