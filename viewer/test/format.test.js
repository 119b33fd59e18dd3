import assert from "node:assert/strict";
import { test } from "node:test";
import { ago, bytes, clockMs, count, lower, memory, plural, sameDay, since, spaced, span, when } from "../page/format.js";

test("numbers and sizes", () => {
  assert.equal(count(1204), "1,204");
  assert.equal(plural(1, "node"), "1 node");
  assert.equal(plural(1204, "node"), "1,204 nodes");
  assert.deepEqual([412, 999, 1000, 18_700, 36_900, 9_400_000, 999_999].map(bytes), ["412 B", "999 B", "1 kB", "18.7 kB", "36.9 kB", "9.4 MB", "1 MB"]);
  assert.deepEqual([0, 268_435_456, 1_181_116_006, 74_658_611].map(memory), ["0 B", "256 MiB", "1.1 GiB", "71.2 MiB"]);
});

test("spans", () => {
  assert.deepEqual([0, 12, 999, 2900, 20_000, 59_949, 59_960, 273_000, 423_000, 9_060_000, 41 * 86_400_000].map(span), ["0 ms", "12 ms", "999 ms", "2.9 s", "20 s", "59.9 s", "1m 00s", "4m 33s", "7m 03s", "2h 31m", "41 days"]);
  assert.deepEqual([3000, 112_000, 34 * 60_000, 9_060_000].map(ago), ["3s ago", "1m 52s ago", "34m ago", "2h 31m ago"]);
  assert.equal(ago(-500), "0s ago");
});

test("times", () => {
  const noon = new Date(2026, 10, 28, 12, 3, 1, 4).getTime();
  assert.equal(clockMs(noon), "12:03:01.004");
  assert.equal(when(noon, noon + 3_600_000), "12:03:01");
  assert.equal(when(noon - 86_400_000, noon), "yesterday 12:03");
  assert.equal(when(noon - 5 * 86_400_000, noon), "23 Nov");
  assert.equal(when(NaN, noon), "–");
  assert.equal(since(noon - 60_000, noon), "1m 00s ago");
  assert.ok(sameDay(noon, noon + 1000));
});

test("names of the API are spaced, not translated", () => {
  assert.deepEqual(["OomKilled", "SpecChange", "WaitingForNode", "Failed", "IdleTimedOut"].map(spaced), ["OOM killed", "Spec change", "Waiting for node", "Failed", "Idle timed out"]);
  assert.deepEqual(["OOM killed", "Failed"].map(lower), ["OOM killed", "failed"]);
});
