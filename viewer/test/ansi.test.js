import assert from "node:assert/strict";
import { test } from "node:test";
import { PLAIN, parse } from "../page/ansi.js";

/** @param {string} text */
const spans = (text) => parse(text).spans.map(({ text: shown, cls, title }) => (title ? `[${shown}]` : cls ? `${cls}(${shown})` : shown)).join("");

test("text without escapes is one span, whatever it holds", () => {
  assert.deepEqual(parse("<script>alert(1)</script> & \t é 漢 👩‍🚀".replace("\u200d", "")).spans.length, 1);
  assert.equal(spans(""), "");
});

test("the sixteen colours, attributes, and their end", () => {
  assert.equal(spans("\x1b[1;31mE:\x1b[0m rest"), "c1 cb(E:) rest");
  assert.equal(spans("\x1b[92mok\x1b[39m"), "c2(ok)");
  assert.equal(spans("\x1b[41mground\x1b[49m x"), "g1(ground) x");
  assert.equal(spans("\x1b[3;4;9;2mx"), "cd ci cu cs(x)");
  assert.equal(spans("\x1b[7;31mx\x1b[27my"), "inv(x)c1(y)");
  assert.equal(spans("\x1b[mx"), "x");
});

test("256 and 24-bit colours become the nearest that can be read", () => {
  assert.equal(spans("\x1b[38;5;196mx"), "c1(x)");
  assert.equal(spans("\x1b[38;5;208mx"), "c7(x)");
  assert.equal(spans("\x1b[38;2;10;200;120mx"), "c2(x)");
  assert.equal(spans("\x1b[38:2::0:0:255mx"), "c4(x)");
  assert.equal(spans("\x1b[48;5;21;1mx"), "g4 cb(x)");
  assert.equal(spans("\x1b[38;5;240mx"), "cd(x)");
  assert.equal(spans("\x1b[38;5;255mx"), "x");
});

test("broken and endless parameters are no colour and no error", () => {
  assert.equal(spans("\x1b[38;2;1mx"), "cd(x)");
  assert.equal(spans("\x1b[38mx"), "x");
  assert.equal(spans(`\x1b[${"1;".repeat(100_000)}mx`).startsWith("[CSI]"), true);
});

test("a carriage return overwrites, and the erasure after it clears", () => {
  assert.equal(spans("10%\r50%\r100%"), "100%");
  assert.equal(spans("hello\rHE"), "HEllo");
  assert.equal(spans("progress\r\x1b[Kdone"), "done");
  assert.equal(spans("abc\b\bX"), "aXc");
  assert.equal(spans("line\r"), "line");
  assert.equal(spans("\x1b[31mred\r\x1b[32mG"), "c2(G)c1(ed)");
});

test("other escapes are names in boxes and have no effect", () => {
  assert.equal(spans("a\x1b[2Jb\x1b[10;20Hc"), "a[CSI 2J]b[CSI 10;20H]c");
  assert.equal(spans("\x1b]0;title\x07x"), "[OSC 0]x");
  assert.equal(spans("\x1b]8;;javascript:alert(1)\x1b\\link\x1b]8;;\x1b\\"), "[OSC 8]link[OSC 8]");
  assert.equal(spans("\x1bPpayload\x1b\\x"), "[DCS]x");
  assert.equal(spans("\x1b(Bx\x1bcx"), "[ESC (B]x[ESC c]x");
  assert.equal(spans("x\x1b"), "x[ESC]");
});

test("a string that never ends shows what follows it", () => {
  const long = `\x1b]52;${"A".repeat(10_000)}`;
  assert.equal(spans(long).length > 9_000, true);
});

test("controls and characters that hide or turn text are named", () => {
  assert.equal(spans("a\0b\x07c\x7f"), "a[NUL]b[BEL]c[DEL]");
  assert.equal(spans("\u202egpj.exe\u202c"), "[RLO]gpj.exe[PDF]");
  assert.equal(spans("a\u200bb\ufeffc\u2028d"), "a[ZWSP]b[BOM]c[LS]d");
  assert.equal(spans("\u{e0041}"), "[U+E0041]");
  assert.equal(spans("\u009b31m"), "[CSI]31m");
});

test("a flood of combining marks is counted", () => {
  assert.equal(spans(`Z${"\u0301".repeat(40)}x`), `Z${"\u0301".repeat(4)}[+36]x`);
  assert.equal(spans("e\u0301"), "e\u0301");
});

test("a part of a line goes on in the colours of the part before", () => {
  const first = parse("\x1b[31mred");
  assert.equal(parse("more", first.pen).spans[0].cls, "c1");
  assert.deepEqual(parse("\x1b[0m", first.pen).pen, PLAIN);
});

test("64 KiB of escapes are read in a moment", () => {
  const began = performance.now();
  parse("\x1b[31m\r".repeat(9000));
  parse("\u0301".repeat(65_536));
  parse(`\x1b]${"x".repeat(65_000)}`);
  parse("\x1b]".repeat(30_000));
  assert.ok(performance.now() - began < 2000);
});
