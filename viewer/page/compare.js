// What the nodes of a Run did otherwise than in another Run of the same Task, by the groups of both. Pure.

import { unfold } from "./names.js";

/** @typedef {import("./types.js").OutputGroup} Group */
/** @typedef {{now: Group, then: Group, nodes: string[]}} Changed nodes that went from one group to another */

/** What must be equal: where it is, the two Runs say the same. @param {Group} group @param {string} equal */
function key({ outcome, exitCode, stdout, stderr }, equal) {
  const parts = [outcome, exitCode ?? ""];
  if (equal !== "stderr") parts.push(stdout.bytes, stdout.sha256);
  if (equal !== "stdout") parts.push(stderr.bytes, stderr.sha256);
  return parts.join(" ");
}

/** Whether both wrote the same, whatever their outcomes. @param {Group} a @param {Group} b */
export const wroteTheSame = (a, b) => a.stdout.sha256 === b.stdout.sha256 && a.stderr.sha256 === b.stderr.sha256;

/**
 * @param {Group[]} now in the order of the page: problems first
 * @param {Group[]} then
 * @param {string} equal `stdout`, `stderr` or `both`
 * @returns {{changed: Changed[], same: number, added: string[], gone: string[]}}
 */
export function changes(now, then, equal) {
  /** @type {Map<string, Group>} */
  const before = new Map();
  for (const group of then) for (const node of unfold(group.nodes)) before.set(node, group);
  /** @type {Changed[]} */
  const changed = [];
  /** @type {string[]} */
  const added = [];
  let same = 0;
  for (const group of now) {
    /** @type {Map<Group, Changed>} */
    const pairs = new Map();
    for (const node of unfold(group.nodes)) {
      const was = before.get(node);
      before.delete(node);
      if (!was) {
        added.push(node);
      } else if (key(was, equal) === key(group, equal)) {
        same += 1;
      } else {
        const pair = pairs.get(was) ?? { now: group, then: was, nodes: [] };
        pair.nodes.push(node);
        pairs.set(was, pair);
      }
    }
    changed.push(...pairs.values());
  }
  return { changed, same, added, gone: [...before.keys()] };
}
