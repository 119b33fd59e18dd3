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

test("equal controls in a row are one box with their number", () => {
  assert.equal(spans("a\0\0\0b\0"), "a[NUL ×3]b[NUL]");
  assert.equal(spans(`${"\u200b".repeat(65_536)}x`), "[ZWSP ×65536]x");
  assert.equal(spans("\x1b[2J\x1b[2J\x1b[3J"), "[CSI 2J ×2][CSI 3J]");
});

test("a line is a bounded number of elements, and its text stays", () => {
  const flood = parse("\0\x07a".repeat(20_000)).spans;
  assert.ok(flood.length <= 1001);
  assert.equal(flood.map(({ text }) => text).join("").match(/a/g)?.length, 20_000);
  const colours = parse(Array.from({ length: 9000 }, (_, n) => `\x1b[3${1 + (n % 6)}mx`).join("")).spans;
  assert.ok(colours.length <= 1001);
  assert.equal(colours.map(({ text }) => text).join(""), "x".repeat(9000));
});

test("every class of sequence is a name in a box, and what follows is text", () => {
  // C1 as two bytes and as one, private markers, intermediates, strings of each kind, character sets, and a query that asks for an answer.
  const all = ["\x1b7", "\x1b=", "\x1b#8", "\x1b%G", "\x1b)0", "\x1bN", "\x1bZ", "\x1b[6n", "\x1b[?1049h", "\x1b[?25l", "\x1b[>c", "\x1b[!p", "\x1b[0 q", "\x1b[5;10r", "\x1b[3A", "\x1b[1J", "\x1b[8;1;1t", "\x1b]0;t\x07", "\x1b]52;c;AAAA\x1b\\", "\x1b]8;;data:text/html,<script>alert(1)</script>\x07", "\x1bPq#0\x1b\\", "\x1bXs\x1b\\", "\x1b^p\x1b\\", "\x1b_a\x1b\\", "\x9b", "\x90", "\x9d", "\x85"];
  for (const sequence of all) {
    const { spans: shown } = parse(`a${sequence}b`);
    assert.deepEqual([shown[0].text, shown.at(-1)?.text], ["a", "b"], JSON.stringify(sequence));
    assert.ok(shown.slice(1, -1).length > 0 && shown.slice(1, -1).every(({ title, cls }) => title && cls === "ctl"), JSON.stringify(sequence));
  }
});

test("every invisible or turning character is named", () => {
  for (const code of [0xad, 0x61c, 0x115f, 0x1160, 0x180e, 0x200b, 0x200c, 0x200d, 0x200e, 0x200f, 0x2028, 0x2029, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2060, 0x2064, 0x2066, 0x2067, 0x2068, 0x2069, 0x206f, 0x3164, 0xfeff, 0xffa0, 0xfff9, 0xe0001, 0xe007f]) {
    const { spans: shown } = parse(`a${String.fromCodePoint(code)}b`);
    assert.deepEqual([shown.length, shown[1].cls], [3, "ctl"], code.toString(16));
  }
});

test("a progress bar is its last state", () => {
  const steps = Array.from({ length: 101 }, (_, n) => `\r[${"#".repeat(n / 5).padEnd(20)}] ${n}%`).join("");
  assert.equal(spans(`${steps}\r`), `[${"#".repeat(20)}] 100%`);
});

test("64 KiB of anything are read in a moment", () => {
  // By the time of the processor: this machine may be busy.
  const before = process.cpuUsage();
  const ends = ["\x1b[31m\r", "\u0301", "\x1b]", "\x1b[", "\x1b[1;1;1;1", "\0", "\b", "\u200d", "ab\r", "\x1bP\x1b_", "\u202e\u0301"];
  for (const piece of [...ends, `\x1b]${"x".repeat(65_000)}`]) parse(piece.repeat(Math.ceil(65_536 / piece.length)));
  const { user, system } = process.cpuUsage(before);
  assert.ok(user + system < 10_000_000, `${(user + system) / 1000} ms`);
});
