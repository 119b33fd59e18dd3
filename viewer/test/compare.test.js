import assert from "node:assert/strict";
import { test } from "node:test";
import { changes, wroteTheSame } from "../page/compare.js";

/** @param {string} nodes @param {string} outcome @param {number | null} exitCode @param {string} stdout @param {string} [stderr] @returns {import("../page/types.js").OutputGroup} */
const group = (nodes, outcome, exitCode, stdout, stderr = "") => ({
  outcome, exitCode, nodes, count: 0, node: "", attempt: 1, message: "",
  stdout: { bytes: stdout.length, dropped: 0, sha256: stdout }, stderr: { bytes: stderr.length, dropped: 0, sha256: stderr },
});

test("nodes that did otherwise are in pairs of groups, those that did the same are counted", () => {
  const then = [group("web-7", "Failed", 3, "a"), group("web-[1-6,8],db", "Succeeded", 0, "a")];
  const now = [group("web-8", "Failed", 3, "a"), group("web-[1,2]", "Succeeded", 0, "b"), group("web-[3-7,9]", "Succeeded", 0, "a")];
  const { changed, same, added, gone } = changes(now, then, "stdout");
  assert.deepEqual(changed.map(({ now: to, then: from, nodes }) => [from.outcome, to.outcome, nodes]), [
    ["Succeeded", "Failed", ["web-8"]],
    ["Succeeded", "Succeeded", ["web-1", "web-2"]],
    ["Failed", "Succeeded", ["web-7"]],
  ]);
  assert.deepEqual([same, added, gone], [4, ["web-9"], ["db"]]);
});

test("only what is asked for must be equal", () => {
  const then = [group("a", "Succeeded", 0, "x", "old")];
  const now = [group("a", "Succeeded", 0, "x", "new")];
  const count = (/** @type {string} */ equal) => changes(now, then, equal).changed.length;
  assert.deepEqual(["stdout", "stderr", "both"].map(count), [0, 1, 1]);
  assert.equal(changes([group("a", "Failed", 1, "x")], [group("a", "Failed", 2, "x")], "stdout").changed.length, 1);
  assert.equal(wroteTheSame(now[0], then[0]), false);
  assert.equal(wroteTheSame(now[0], { ...now[0], outcome: "Failed" }), true);
});
