import assert from "node:assert/strict";
import { test } from "node:test";
import { inWords, percent, segments } from "../page/spark.js";

test("silence is a gap in the line", () => {
  const found = segments([0, 100, null, null, 50, null], 100, 50, 18);
  assert.deepEqual(found, [
    { line: "M0.0 17.0 10.0 1.0", area: "M0.0 17.0 10.0 1.0V18H0.0z" },
    { line: "M40.0 9.0h1", area: "M40.0 9.0h1V18H40.0z" },
  ]);
  assert.deepEqual(segments([null, null], 100, 84, 18), []);
});

test("values beyond the edge, and an edge of nothing, stay in the box", () => {
  assert.equal(segments([300, 0], 100, 84, 18)[0].line, "M0.0 1.0 84.0 17.0");
  assert.equal(segments([0, 0], 0, 84, 18)[0].line, "M0.0 17.0 84.0 17.0");
});

test("a sparkline has a text alternative", () => {
  assert.equal(inWords("CPU", [null, 3, 40.4, 12, null], percent), "CPU, last 15 minutes: lowest 3%, highest 40%, last 12%");
  assert.equal(inWords("CPU", [3, null, 12], percent), "CPU, last 15 minutes: lowest 3%, highest 12%, last 12%, with gaps");
  assert.match(inWords("CPU", [null], percent), /nothing was heard/);
});
