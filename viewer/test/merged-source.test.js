// The window of the merged log of a Run, against a server of this file.
import assert from "node:assert/strict";
import { test } from "node:test";
import "./browser.js";

const { MergedSource } = await import("../page/merged-source.js");

const logs = { uid: "u", run: 1, nodes: /** @type {string[]} */ ([]), stream: "both" };

/** Serves a Run that has ended with so many lines; a cursor is the number of lines before it. @param {number} lines */
function serve(lines) {
  const line = (/** @type {number} */ n) => ({ line: n, node: "a", attempt: 1, position: (n - 1) * 10, stream: "stdout", atMicros: n * 1000, text: `line ${n}` });
  globalThis.fetch = /** @type {any} */ (
    async (/** @type {string} */ url) => {
      const query = new URL(url, "http://x").searchParams;
      const count = Number(query.get("tail") ?? query.get("count"));
      const isBack = query.has("tail") || query.has("to");
      const before = isBack ? Math.max(0, Number(query.get("to") ?? lines) - count) : Number(query.get("from") ?? 0);
      const next = isBack ? Number(query.get("to") ?? lines) : Math.min(lines, before + count);
      return Response.json({
        lines: Array.from({ length: next - before }, (_, index) => line(before + index + 1)),
        before: String(before),
        next: String(next),
        // As the operator has it: of an answer that reaches the end.
        ended: next === lines,
        nodes: [],
      });
    }
  );
}

/** @param {InstanceType<typeof MergedSource>} source */
function assertContiguous(source) {
  const numbers = source.entries.map((entry) => ("line" in entry ? entry.line : 0));
  assert.deepEqual(numbers, numbers.map((_, index) => numbers[0] + index));
  const positions = source.entries.map(({ position }) => position);
  assert.deepEqual(positions, positions.map((_, index) => positions[0] + index));
  return [numbers[0], /** @type {number} */ (numbers.at(-1))];
}

test("a Run that has ended stays so when other lines than its last are read", async () => {
  // It took the first lines for those of a Run that goes on, followed it, and rushed from Home to the end and back.
  serve(8000);
  const source = new MergedSource(logs);
  await source.tail();
  assert.equal(source.ended, true);
  await source.line();
  assert.equal(source.entries[0].position, 1);
  assert.deepEqual([source.ended, source.atEnd], [true, false]);
  await source.more();
  assert.deepEqual([source.ended, source.atEnd], [true, false]);
  source.close();
});

test("from the first line to the last and back, the window has each line once", async () => {
  serve(8012);
  const source = new MergedSource(logs);
  await source.line();
  for (let n = 0; !source.atEnd; n += 1) {
    assert.equal(assertContiguous(source)[1], Math.min(8012, 1000 * (n + 1)));
    await source.more();
  }
  assert.deepEqual([assertContiguous(source)[1], source.ended, source.atStart], [8012, true, false]);
  while (!source.atStart) {
    await source.earlier();
    assertContiguous(source);
    assert.ok(source.entries.length <= 6000);
  }
  assert.deepEqual([assertContiguous(source)[0], source.ended, source.atEnd], [1, true, false]);
  source.close();
});

test("a window is announced before anything of it can be asked for, although no frame is drawn", async () => {
  // Until the next frame, places in it were taken for those of the lines before: rows were missing, and PageDown jumped.
  serve(8000);
  const draw = globalThis.requestAnimationFrame;
  globalThis.requestAnimationFrame = () => 0;
  try {
    const source = new MergedSource(logs);
    for (const open of [() => source.tail(), () => source.line(), () => source.since("1970-01-01T00:00:02Z")]) {
      const before = source.version.peek();
      await open();
      assert.notEqual(source.version.peek(), before);
    }
    source.close();
  } finally {
    globalThis.requestAnimationFrame = draw;
  }
});
