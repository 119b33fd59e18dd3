// The bars of a lane of the timeline.
import assert from "node:assert/strict";
import { test } from "node:test";
import { barsOf, wasTried } from "../page/attempts.js";

const start = Date.parse("2026-11-28T12:00:00Z");
const at = (/** @type {number} */ seconds) => new Date(start + seconds * 1000).toISOString();
const attempt = (/** @type {number} */ n, /** @type {string} */ state, /** @type {number} */ from, /** @type {number | null} */ to) => /** @type {any} */ ({ node: "a", attempt: n, state, startedAt: at(from), endedAt: to === null ? null : at(to), exitCode: state === "Failed" ? 3 : null });
const shape = (/** @type {ReturnType<typeof barsOf>} */ bars) => bars.map(({ attempt: n, state, from, to }) => `${n} ${state} ${(from - start) / 1000}-${(to - start) / 1000}`);

test("a bar for each attempt, and one of the latest while the others are not known", () => {
  const latest = attempt(3, "Running", 20, null);
  const known = new Map([["a", [attempt(1, "Failed", 0, 5), attempt(2, "TimedOut", 7, 17), attempt(3, "Running", 20, null)]]]);
  assert.deepEqual(shape(barsOf(latest, known, start + 25_000)), ["1 Failed 0-5", "2 TimedOut 7-17", "3 Running 20-25"]);
  assert.equal(barsOf(latest, known, 0)[0].text, "Attempt 1: failed, exit 3, 5 s");
  assert.deepEqual(shape(barsOf(latest, new Map(), start + 25_000)), ["3 Running 20-25"]);
  // The list is newer than what was asked for before.
  assert.deepEqual(shape(barsOf(attempt(3, "Succeeded", 20, 24), known, 0)).at(-1), "3 Succeeded 20-24");
});

test("one that waits to be tried again has run, and runs no more", () => {
  const waiting = { ...attempt(1, "Pending", 0, null), startedAt: null };
  assert.ok(wasTried(waiting));
  assert.deepEqual(shape(barsOf(waiting, new Map([["a", [attempt(1, "Failed", 0, 5)]]]), start + 9000)), ["1 Failed 0-5"]);
  assert.ok(!wasTried(/** @type {any} */ ({ attempt: 0, state: "Pending" })) && !wasTried(attempt(1, "Failed", 0, 5)));
});
