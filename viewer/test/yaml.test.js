import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { lines, read, write, YamlError } from "../page/yaml.js";

const round = (/** @type {any} */ value) => assert.deepEqual(read(write(value)), value, write(value));

test("what is written is read as it was", () => {
  round({ a: "x", b: 1, c: true, d: null, e: [], f: {}, g: "", h: [1, "two", ["three"]], i: { j: { k: { l: "deep", m: [{ n: 1, o: "p" }, { q: [1] }] } } } });
  round({ targets: { nodeSelector: { matchExpressions: [{ key: "pool", operator: "In", values: ["web", "edge"] }] } } });
  for (const text of ["true", "no", "~", "1", "1.5", "0x10", "1e3", "-", "- x", "a: b", "a #b", "#x", "'q'", '"', "a\tb", " lead", "trail ", "é", "漢", "*x", "&x", "!x", "%x", "@x", "`x", "{a}", "[a]", "a,b", "key:", "?", "|", ">", "20s", "256Mi", "5%", "1h30m", "2026-11-28", "\u2028", "\0", "a\\b", ":", "::group::"]) {
    round({ value: text, list: [text], map: { [text || "k"]: text } });
  }
});

test("scripts are blocks", () => {
  assert.equal(write({ text: "set -e\nuname -a\n" }), "text: |\n  set -e\n  uname -a\n");
  for (const text of ["a\nb", "a\nb\n", "a\n\nb\n", "a\nb\n\n\n", "#!/bin/sh\n  indented\nx: y\n- z\n", " first is indented\nb\n", "\nempty first\n", "tab\there\n", "a\r\nb\n", "\n"]) round({ run: { script: { text } }, list: [text] });
});

test("lines know the path of their field", () => {
  const found = lines({ spec: { timeouts: { run: "20 seconds", idle: "15s", total: "1h", unreachable: "30s" } } });
  assert.deepEqual(found.find(({ key }) => key === "run"), { indent: 4, key: "run", value: "20 seconds", path: "spec.timeouts.run" });
});

test("YAML as people write it", () => {
  assert.deepEqual(read("# c\n---\na: 1 # c\nb:\n- x\n- y: 1\n  z: 2\n-\n  - n\nc: {d: [1, 'two', \"three\"], e: f}\n"), { a: 1, b: ["x", { y: 1, z: 2 }, ["n"]], c: { d: [1, "two", "three"], e: "f" } });
  assert.deepEqual(read("a: >\n  one\n  two\n\n  three\nb: |-\n  x\n\nc: 'it''s'\nd: http://x/y#z\n"), { a: "one two\n\nthree\n".replace("two\n\n", "two\n"), b: "x", c: "it's", d: "http://x/y#z" });
  assert.deepEqual(read("a: [1,\n  2,\n  {b: c}]\n"), { a: [1, 2, { b: "c" }] });
  assert.deepEqual(read('{"json": [1, {"is": "too"}]}'), { json: [1, { is: "too" }] });
  assert.equal(read("# nothing\n"), null);
});

test("what is not read is named with its line", () => {
  for (const [text, line] of /** @type {[string, number][]} */ ([["a: 1\na: 2", 2], ["a: &x 1", 1], ["a: *x", 1], ["a: !!str x", 1], ["a:\n\tb: 1", 2], ["a: 1\n   b: 2", 2], ["a: [1", 1], ["a: b: c", 1], ["a: {b 1}", 1], ["a: 'x", 1], ["x", 0]])) {
    if (line === 0) assert.equal(read(text), "x");
    else assert.throws(() => read(text), (error) => error instanceof YamlError && error.line === line, text);
  }
  assert.deepEqual(Object.keys(/** @type {object} */ (read("__proto__: 1"))), ["__proto__"]);
});

test("the examples are read", () => {
  const folder = new URL("../../examples/", import.meta.url);
  for (const name of readdirSync(folder).filter((file) => file.endsWith(".yaml"))) {
    for (const text of readFileSync(new URL(name, folder), "utf8").split(/^---$/m)) {
      const task = /** @type {any} */ (read(text));
      if (task === null) continue;
      assert.equal(task.kind, "Task", name);
      round(task);
    }
  }
});
