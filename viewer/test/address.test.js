import assert from "node:assert/strict";
import { test } from "node:test";
import { executionPath, lineText, logPath, ownPath, parse, parseLine, queryText, runPath, taskPath } from "../page/address.js";

const page = (/** @type {string} */ path) => parse(path).page;

test("every view has an address", () => {
  assert.deepEqual(["", "tasks", "tasks/", "tasks/new", "tasks/ops/x", "tasks/ops/x/runs/3", "tasks/ops/x/runs/3/nodes/a.b", "tasks/ops/x/runs/3/log", "fleet", "fleet/web-1", "history", "login"].map(page),
    ["tasks", "tasks", "tasks", "form", "task", "task", "execution", "log", "fleet", "node", "history", "login"]);
  assert.deepEqual(["x", "tasks/ops", "tasks/ops/x/runs/0", "tasks/ops/x/runs/a", "tasks/ops/x/runs/1/what", "fleet/a/b", "history/x"].map(page), Array(7).fill("missing"));
});

test("what is built is read as it was", () => {
  const found = parse(executionPath("ops", "patch", 3, "web-017.example").split("?")[0]);
  assert.deepEqual([found.ns, found.name, found.run, found.node], ["ops", "patch", 3, "web-017.example"]);
  assert.equal(parse("tasks/o%2fps/%E0%A4").page, "task");
  assert.equal(taskPath("ops", "x"), "tasks/ops/x");
  assert.equal(runPath("ops", "x", 3, { state: "Failed" }), "tasks/ops/x/runs/3?state=Failed");
});

test("defaults are left out, and brackets stay readable", () => {
  assert.equal(queryText({ view: "map", tab: "outputs", q: "" }, { view: "table" }), "");
  assert.equal(logPath("ops", "x", 3, { node: "web-[016-022]", stream: "both" }), "tasks/ops/x/runs/3/log?node=web-[016-022]");
  assert.equal(queryText({ q: "pool=web disk>90 &#?" }), "?q=pool=web%20disk%3E90%20%26%23%3F");
  assert.equal(Object.fromEntries(new URLSearchParams(queryText({ q: "a&b=c #é" }))).q, "a&b=c #é");
});

test("a line is node, attempt and position", () => {
  assert.deepEqual(parseLine("web-017.1.11842"), { node: "web-017", attempt: 1, position: 11842 });
  assert.deepEqual(parseLine("a.b.example.2.0"), { node: "a.b.example", attempt: 2, position: 0 });
  assert.equal(lineText({ node: "a.b", attempt: 2, position: 7 }), "a.b.2.7");
  for (const wrong of ["", "x", "x.1", "x.1.-2", undefined]) assert.equal(parseLine(wrong), null);
});

test("signing in leads to a path of this page only", () => {
  assert.equal(ownPath("tasks/ops/x?tab=runs"), "tasks/ops/x?tab=runs");
  for (const wrong of ["//evil.example", "https://evil.example", "tasks//evil", "/\\evil", "javascript:alert(1)", "", undefined, "tasksevil"]) assert.equal(ownPath(wrong), "tasks");
});
