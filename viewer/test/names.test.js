import assert from "node:assert/strict";
import { test } from "node:test";
import { commonPrefix, cut, fold, freeName, mark, unfold } from "../page/names.js";

const range = (prefix, from, to, width = 0) => Array.from({ length: to - from + 1 }, (_, n) => prefix + String(from + n).padStart(width, "0"));

test("names fold into ranges", () => {
  assert.equal(fold([...range("web-", 1, 40), "web-43"]), "web-[1-40,43]");
  assert.equal(fold(["web-017", "web-203", "web-112"]), "web-[017,112,203]");
  assert.equal(fold([...range("edge-", 77, 78, 3), "web-188"]), "edge-[077-078], web-188");
  assert.equal(fold(["web-188"]), "web-188");
  assert.equal(fold([]), "");
});

test("what has no number or another suffix stays apart", () => {
  assert.equal(fold(["vm", "a1.example", "a2.example", "b"]), "a[1-2].example, b, vm");
});

test("leading zeros keep their width", () => {
  assert.equal(fold(["n-9", "n-10", "n-11"]), "n-[9-11]");
  assert.deepEqual(unfold(fold(["n-09", "n-10", "n-9", "n-100"])).sort(), ["n-09", "n-10", "n-100", "n-9"]);
});

test("numbers beyond what a float holds are exact", () => {
  assert.equal(fold(["n9007199254740993", "n9007199254740992"]), "n[9007199254740992-9007199254740993]");
});

test("what is folded can be unfolded", () => {
  const names = [...range("web-", 1, 216, 3), ...range("edge-", 13, 96, 3), "db", "a.b.example-7"];
  assert.deepEqual(unfold(fold(names)).sort(), [...names].sort());
  assert.deepEqual(unfold("web-[001-003,7], db"), ["web-001", "web-002", "web-003", "web-7", "db"]);
  assert.equal(unfold("x[0-99999999]").length, 20_000);
  assert.deepEqual(unfold("x[a-b]"), []);
});

test("fifteen thousand names fold in a moment", () => {
  const names = range("node-", 1, 15_000);
  const began = performance.now();
  assert.equal(fold(names), "node-[1-15000]");
  assert.ok(performance.now() - began < 1000);
});

test("cells show what differs, marks are stable, long names keep both ends", () => {
  assert.equal(commonPrefix(["web-001", "web-002"]), "web-");
  assert.equal(commonPrefix(["a", "b"]), "");
  assert.equal(mark("web-017"), mark("web-017"));
  assert.match(mark("x"), /^c(6|7|8|9|10|11)$/);
  assert.equal(cut("a".repeat(253), 11), "aaaaa…aaaaa");
});

test("a Task for the failed nodes has a name that no other has, however long and often", () => {
  const taken = new Set(["web"]);
  const next = (name) => {
    const free = freeName(name, "rerun-3", (one) => taken.has(one));
    taken.add(free);
    return free;
  };
  assert.deepEqual([next("web"), next("web"), next("web")], ["web-rerun-3", "web-rerun-3-2", "web-rerun-3-3"]);
  const long = [next(`${"a".repeat(251)}.b`), next(`${"a".repeat(251)}.c`)];
  assert.ok(long.every((name) => name.length <= 253 && /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(name)), long.join());
  assert.equal(new Set(long).size, 2);
});
