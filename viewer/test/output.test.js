// Events, groups, arguments and drafts.
import assert from "node:assert/strict";
import { test } from "node:test";
import { join, split } from "../page/argv.js";
import { blank, commandText, environment, environmentText, get, numberOrText, ofTask, problemsAt, problemsOf, problemText, runsAnew, set } from "../page/draft.js";
import { headsOf, rowsOf } from "../page/log-groups.js";
import { EventParser } from "../page/sse.js";
import { Row } from "../page/log-rows.js";
import { distribution, rateOf, seen } from "../page/figures.js";
import { isProblem, look, shares, stateText, worst } from "../page/states.js";

test("events in any pieces", () => {
  const whole = ": alive\n\nevent: lines\r\nid: 42\ndata: {\"a\":\ndata: 1}\n\ndata:x\n\nevent: empty\n\n";
  for (let size = 1; size < whole.length; size += 1) {
    const parser = new EventParser();
    const events = [];
    for (let at = 0; at < whole.length; at += size) events.push(...parser.push(whole.slice(at, at + size)));
    assert.deepEqual(events, [{ event: "lines", data: '{"a":\n1}', id: "42" }, { event: "message", data: "x", id: "42" }]);
  }
});

/** @param {string[]} texts @returns {import("../page/types.js").Line[]} */
const entries = (texts) => texts.map((text, index) => ({ line: index + 1, position: index * 10, stream: "stdout", atMicros: index * 1e6, text }));
const shown = (/** @type {string[]} */ texts, /** @type {number[]} */ closed = []) => rowsOf(entries(texts), new Set(closed)).map(({ entry, head }) => (head ? `${head.open ? "-" : "+"}${head.title} ${head.lines}` : /** @type {any} */ (entry).text));

test("groups fold, and their ends are no rows", () => {
  const texts = ["a", "::group::one", "x", "y", "::endgroup::", "b"];
  assert.deepEqual(shown(texts), ["a", "-one 2", "x", "y", "b"]);
  assert.deepEqual(shown(texts, [10]), ["a", "+one 2", "b"]);
  assert.deepEqual(shown(["::group::a", "::group::b", "x", "::endgroup::", "y", "::endgroup::", "z"], [0]), ["+a 4", "z"]);
  assert.deepEqual(shown(["section_start:1:build\r\x1b[0K\x1b[1mBuild\x1b[0m", "x", "section_end:2:build\r\x1b[0K"], [0]), ["+Build 1"]);
});

test("groups of one node hide no line of another", () => {
  const texts = ["a::group::one", "b::group::two", "ax", "bx", "a::endgroup::", "ay", "by", "b--- three", "bz"];
  const merged = texts.map((text, index) => ({ ...entries([text.slice(1)])[0], position: index * 10, node: text[0] }));
  const of = (/** @type {number[]} */ closed) => rowsOf(merged, new Set(closed)).map(({ entry, head }) => `${entry.node}${head ? `${head.title} ${head.lines}` : /** @type {any} */ (entry).text}`);
  assert.deepEqual(of([]), ["aone 1", "btwo 4", "ax", "bx", "ay", "by", "bthree 1", "bz"]);
  assert.deepEqual(of([0]), ["aone 1", "btwo 4", "bx", "ay", "by", "bthree 1", "bz"]);
  assert.deepEqual(of([10]), ["aone 1", "btwo 4", "ax", "ay"]);
});

test("headers end at the next one, and a diff is none", () => {
  assert.deepEqual(shown(["--- one", "x", "--- two", "y"], [0, 20]), ["+one 1", "+two 1"]);
  assert.deepEqual(shown(["--- a/file", "+++ b/file", "@@"]), ["--- a/file", "+++ b/file", "@@"]);
  assert.deepEqual(shown(["::endgroup::", "x", "----", "::group::open", "y"], []), ["::endgroup::", "x", "----", "-open 1", "y"]);
  assert.deepEqual(headsOf(entries(["::group::a", "x", "::endgroup::", "--- b"])), [0, 30]);
});

test("arguments are split and joined without a shell", () => {
  for (const words of [["df", "-h"], ["sh", "-c", "echo 'it''s' \"x\" $HOME; sleep 1"], ["", " ", "a\nb", "\\", "'", "é"]]) assert.deepEqual(split(join(words)), { words, wrong: null });
  assert.deepEqual(split(`a "b c" d\\ e 'f"g' "h\\"i\\n"`).words, ["a", "b c", "d e", 'f"g', 'h"i\\n']);
  assert.notEqual(split("a 'b").wrong, null);
  assert.deepEqual(split("  ").words, []);
});

test("a field is a view of one path", () => {
  const draft = set(set(blank(), "spec.timeouts.run", "5m"), "spec.run.limits.pids", 64);
  assert.equal(get(draft, "spec.timeouts.run"), "5m");
  assert.equal(get(set(draft, "spec.timeouts.run", undefined), "spec.timeouts"), undefined);
  assert.equal(get(blank(), "spec.timeouts.run"), undefined);
  assert.deepEqual([numberOrText("24"), numberOrText("25%"), numberOrText("")], [24, "25%", undefined]);
  assert.deepEqual(environment("A=b=c\n\nD"), [{ name: "A", value: "b=c" }, { name: "D", value: "" }]);
  assert.equal(environmentText(environment("A=b=c\nD=")), "A=b=c\nD=");
  const secrets = "A=secretKeyRef:db/pass.word\nB=secretKeyRef:db/b?\nC=secretKeyRef:";
  assert.deepEqual(environment(secrets), [
    { name: "A", valueFrom: { secretKeyRef: { name: "db", key: "pass.word" } } },
    { name: "B", valueFrom: { secretKeyRef: { name: "db", key: "b", optional: true } } },
    { name: "C", value: "secretKeyRef:" },
  ]);
  assert.equal(environmentText(environment(secrets)), secrets, "an edit in the form keeps its secrets");
});

test("a Task is shown as people wrote it", () => {
  const task = { apiVersion: "x", kind: "Task", metadata: { name: "a", namespace: "b", uid: "u", annotations: { "sentinelnode.dev/cancel": "1", mine: "2" } }, spec: { onChange: "Finish", targets: { all: true, controlPlane: "Exclude", exclude: {} }, run: { command: ["df"], env: [], limits: {}, umask: "022" }, timeouts: { run: "5m", grace: "10s" } }, status: { phase: "x" } };
  assert.deepEqual(ofTask(task).spec, { targets: { all: true }, run: { command: ["df"] }, timeouts: { run: "5m" } });
  assert.deepEqual(ofTask(task).metadata, { name: "a", namespace: "b", annotations: { mine: "2" } });
  assert.equal(runsAnew(ofTask(task)), runsAnew(set(ofTask(task), "spec.timeouts.run", "6m")));
  assert.equal(commandText({ command: ["sh", "-c", "a\n  b"] }), "sh -c 'a; b'");
});

test("problems stand at their field", () => {
  const problems = problemsOf({ message: "m", field: "spec.run.command[0]", value: "", allowed: "must be a program" });
  assert.equal(problemsAt(problems, "spec.run.command").length, 1);
  assert.equal(problemsAt(problems, "spec.run").length, 1);
  assert.equal(problemsAt(problems, "spec.run.comm").length, 0);
  assert.equal(problemText(problems[0]), "Must be a program.");
  assert.deepEqual(problemsOf({ message: "m" }), []);
});

test("states: problems first, and unknown ones are shown", () => {
  assert.deepEqual(shares(["Succeeded", "Lost", "Failed", "Running", "Failed"]).map(({ name, count }) => `${name} ${count}`), ["Failed 2", "Lost 1", "Running 1", "Succeeded 1"]);
  assert.equal(look("NewState").word, "New state");
  assert.equal(look(undefined).word, "Waiting");
  assert.ok(isProblem("Lost") && !isProblem("Cancelled"));
  assert.equal(stateText({ state: "Failed", exitCode: 100 }), "Failed, exit 100");
  assert.equal(worst(shares(["OomKilled", "Succeeded"]))?.text, "1 OOM killed");
});

test("figures of a node", () => {
  const metrics = { cpuPercent: 97, cpuCount: 2, memoryUsed: 1, memoryTotal: 4, load: [1, 1, 1], uptimeSeconds: 9, disks: [{ mount: "/", total: 100, available: 60 }, { mount: "/d", total: 100, available: 1 }], networks: [{ interface: "eth0", received: 1000, sent: 10 }], running: 0, spooled: 0 };
  const node = /** @type {any} */ ({ name: "a", reachable: true, lastHeardAt: "2026-11-28T12:00:00Z", metrics });
  const now = Date.parse("2026-11-28T12:00:05Z");
  assert.deepEqual(seen(node, now, null, now).disk, { mount: "/d", share: 99 });
  assert.deepEqual(seen({ ...node, reachable: false }, now, null, now).figures.cpu, null);
  const later = { ...node, lastHeardAt: "2026-11-28T12:00:10Z", metrics: { ...metrics, uptimeSeconds: 19, networks: [{ interface: "eth0", received: 11_000, sent: 10 }] } };
  assert.deepEqual(rateOf(node, later), { received: 1000, sent: 0 });
  assert.equal(rateOf(node, { ...later, metrics: { ...later.metrics, uptimeSeconds: 1 } }), null);
  assert.equal(rateOf(undefined, later), null);
  assert.deepEqual(distribution([0, 50, 100, null], 4).counts, [1, 0, 1, 1]);
});

test("a node is late between its heartbeat and unreachable", () => {
  const heardAt = Date.parse("2026-11-28T12:00:00Z");
  const node = /** @type {any} */ ({ name: "a", reachable: true, lastHeardAt: "2026-11-28T12:00:00Z" });
  const after = (/** @type {number} */ ms, asked = ms) => seen(node, heardAt + ms, null, heardAt + asked);
  assert.deepEqual([0, 5500, 9000, 15_000].map((ms) => after(ms).presence), ["reachable", "reachable", "late", "late"]);
  assert.equal(seen({ ...node, reachable: false }, heardAt + 16_000, null, heardAt + 16_000).presence, "unreachable");
  // The tab was hidden, or the operator does not answer.
  const quiet = after(60_000, 5500);
  assert.deepEqual([quiet.presence, quiet.heard], ["reachable", 60_000]);
});

test("a gap of a log has its time, if that is known", () => {
  const gap = { position: 10, dropped: 9, reason: "the spool was full", stream: /** @type {const} */ ("stdout") };
  const shown = (/** @type {number | undefined} */ atMicros) => {
    const row = /** @type {any} */ (Row({ entry: { ...gap, atMicros }, time: "start", start: 1000, now: 9000 }));
    return row.props.children.find((/** @type {any} */ child) => child?.type === "time").props.children;
  };
  assert.deepEqual([shown(3_500_000), shown(undefined)], ["+2.500", undefined]);
});
