import assert from "node:assert/strict";
import { test } from "node:test";
import { height, lastTop, lineAt, ROW, rowsIn, TALLEST, topOf, wheelLines } from "../page/scroll.js";

const shapes = [0, 1, 30, 1000, 200_000, 10_000_000, 1_000_000_000].map((lines) => ({ lines, view: 800 }));

test("the scroller is never taller than a browser allows", () => {
  for (const shape of shapes) {
    assert.ok(height(shape) <= TALLEST);
    assert.ok(height(shape) >= shape.view);
  }
  assert.equal(height({ lines: 1000, view: 800 }), 20_000);
});

test("both ends of the bar are both ends of the log", () => {
  for (const shape of shapes) {
    assert.equal(lineAt(0, shape), 1);
    assert.equal(lineAt(height(shape) - shape.view, shape), lastTop(shape));
    assert.equal(topOf(1, shape), 0);
    assert.equal(topOf(lastTop(shape), shape), height(shape) - shape.view);
    assert.equal(lineAt(-50, shape), 1);
    assert.equal(topOf(shape.lines * 2 + 5, shape), height(shape) - shape.view);
  }
});

test("a short log scrolls as it would by itself", () => {
  const shape = { lines: 1000, view: 800 };
  for (const line of [1, 2, 77, 500, lastTop(shape)]) {
    assert.equal(topOf(line, shape), (line - 1) * ROW);
    assert.equal(lineAt(topOf(line, shape), shape), line);
  }
});

test("of ten million lines every pixel is a line nearby, in order", () => {
  const shape = { lines: 10_000_000, view: 800 };
  let before = 0;
  for (let top = 0; top <= height(shape) - shape.view; top += 997) {
    const line = lineAt(top, shape);
    assert.ok(line > before);
    assert.ok(Math.abs(topOf(line, shape) - top) <= 1);
    before = line;
  }
});

test("one notch is three lines, and small steps add up", () => {
  assert.equal(wheelLines({ deltaY: 120, deltaMode: 0 }, 0, 40).lines, 3);
  assert.equal(wheelLines({ deltaY: -100, deltaMode: 0 }, 0, 40).lines, -3);
  assert.equal(wheelLines({ deltaY: 3, deltaMode: 1 }, 0, 40).lines, 3);
  assert.equal(wheelLines({ deltaY: 1, deltaMode: 2 }, 0, 40).lines, 40);
  let rest = 0;
  let lines = 0;
  for (let n = 0; n < 10; n += 1) {
    const moved = wheelLines({ deltaY: 6, deltaMode: 0 }, rest, 40);
    lines += moved.lines;
    rest = moved.rest;
  }
  assert.equal(lines, 3);
  assert.equal(rowsIn({ lines: 1, view: 5 }), 1);
});
