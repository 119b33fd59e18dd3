import assert from "node:assert/strict";
import { test } from "node:test";
import { matches, nodeFilter, parseSelector, selectorText, targeted } from "../page/selector.js";

test("selectors are read and written", () => {
  const text = "pool=web, zone in (a, b), !spot, gpu, tier notin (x)";
  const { selector, wrong } = parseSelector(text);
  assert.equal(wrong, null);
  assert.deepEqual(selector.matchLabels, { pool: "web" });
  assert.equal(selectorText(selector), text);
  assert.equal(parseSelector("topology.kubernetes.io/zone=a").selector.matchLabels?.["topology.kubernetes.io/zone"], "a");
  assert.deepEqual(parseSelector(" , ").selector, {});
  for (const bad of ["a b", "=x", "a in (b", "a in b", "a=b=c", "(a)"]) assert.notEqual(parseSelector(bad).wrong, null, bad);
});

test("they match as in Kubernetes", () => {
  const labels = { pool: "web", zone: "a" };
  const yes = (/** @type {string} */ text) => matches(labels, parseSelector(text).selector);
  assert.deepEqual(["pool=web", "pool in (db, web)", "pool", "!gpu", "gpu notin (a)", "gpu!=a"].map(yes), Array(6).fill(true));
  assert.deepEqual(["pool=db", "pool in (db)", "gpu", "!pool", "pool notin (web)", "pool!=web"].map(yes), Array(6).fill(false));
});

test("control planes are no targets unless they are meant", () => {
  const nodes = [{ name: "cp", labels: { "node-role.kubernetes.io/control-plane": "" } }, { name: "a", labels: {} }, { name: "b", labels: { pool: "x" } }];
  const names = (/** @type {any} */ targets) => targeted(nodes, targets).map(({ name }) => name).join();
  assert.equal(names({ all: true }), "a,b");
  assert.equal(names({ all: true, controlPlane: "Include" }), "cp,a,b");
  assert.equal(names({ nodeNames: ["cp", "gone"] }), "cp");
  assert.equal(names({ all: true, exclude: { nodeNames: ["b"] } }), "a");
  assert.equal(names({ nodeSelector: { matchLabels: { pool: "x" } } }), "b");
  assert.equal(names({}), "");
});

test("the filter of the fleet", () => {
  const node = { name: "Web-017", labels: { pool: "web", "topology.kubernetes.io/zone": "a" }, figures: { cpu: 50, disk: 99, memory: null } };
  const yes = (/** @type {string} */ text) => nodeFilter(text)(node);
  assert.deepEqual(["", "web", "017 web", "pool=web", "zone=a", "zone!=b", "disk>90", "cpu>=50 cpu<=50", "disk>90%"].map(yes), Array(9).fill(true));
  assert.deepEqual(["db", "pool=db", "disk<90", "memory>0", "pool!=web", "cpu>50"].map(yes), Array(6).fill(false));
});
