import assert from "node:assert/strict";
import { test } from "node:test";
import { diff } from "../page/diff.js";

/** @param {string} a @param {string} b */
const shown = (a, b) => diff(a.split("\n"), b.split("\n")).map((change) => (change.kind === "equal" ? `=${change.lines.length}` : `${change.kind === "add" ? "+" : "-"}${change.line.slice(0, change.from)}[${change.line.slice(change.from, change.to)}]${change.line.slice(change.to)}`));

test("equal outputs are one stretch", () => {
  assert.deepEqual(shown("a\nb", "a\nb"), ["=2"]);
  assert.deepEqual(diff([], []), []);
});

test("words that differ are marked whole", () => {
  assert.deepEqual(shown("x\nover (3.0.15-1~deb12u1) ...\ny", "x\nover (3.0.14-1~deb12u2) ...\ny"), ["=1", "-over ([3.0.15-1~deb12u1]) ...", "+over ([3.0.14-1~deb12u2]) ...", "=1"]);
  assert.deepEqual(shown("restart: 0", "restart: 3"), ["-restart: [0]", "+restart: [3]"]);
});

test("lines that came or went", () => {
  assert.deepEqual(shown("a\nb\nc", "a\nc"), ["=1", "-[]b", "=1"]);
  assert.deepEqual(shown("a\nc", "a\nb\nc\nd"), ["=1", "+[]b", "=1", "+[]d"]);
  assert.deepEqual(shown("a\nb\nc\nd\ne", "a\nx\nc\ny\ne"), ["=1", "-[b]", "+[x]", "=1", "-[d]", "+[y]", "=1"]);
});

test("every line is there once, in order, also of long outputs", () => {
  for (const size of [10, 399, 2000]) {
    const base = Array.from({ length: size }, (_, n) => `line ${n * 7919 % 97}`);
    const other = Array.from({ length: size + 5 }, (_, n) => `line ${n * 104729 % 89}`);
    const changes = diff(base, other);
    const lines = (/** @type {string} */ kind) => changes.flatMap((change) => (change.kind === "equal" ? change.lines : change.kind === kind ? [change.line] : []));
    assert.deepEqual(lines("del"), base);
    assert.deepEqual(lines("add"), other);
  }
});
