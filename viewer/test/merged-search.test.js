// A search through the logs of a Run, against a server of this file that searches one log after the other.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { until } from "./browser.js";

const { MergedSearch } = await import("../page/merged-search.js");

/** @typedef {{node: string, at: number, ms: number, text?: string}} Found */

/** A line of the answer. @param {Found} found */
const hit = ({ node, at, ms, text = "a needle" }) => ({ kind: "hit", node, attempt: 1, line: at + 1, position: at, stream: "stdout", atMicros: ms * 1000, text: text.split(/(needle)/) });

/** Answers with these lines, one list for each question; returns what was asked. @param {(object[] | {status: number, body: object})[]} answers */
function serve(...answers) {
  const asked = /** @type {URLSearchParams[]} */ ([]);
  globalThis.fetch = /** @type {any} */ (
    async (/** @type {string} */ url) => {
      asked.push(new URL(url, "http://x").searchParams);
      const answer = answers.shift() ?? [{ kind: "end", next: "c9", complete: true }];
      if (!Array.isArray(answer)) return Response.json(answer.body, { status: answer.status });
      return new Response(answer.map((line) => `${JSON.stringify(line)}\n`).join(""));
    }
  );
  return asked;
}

/** @type {InstanceType<typeof MergedSearch>[]} */
const opened = [];
after(() => opened.forEach((one) => one.close()));

const logs = { uid: "u", run: 2, nodes: /** @type {string[]} */ ([]), stream: "both" };
const source = { ended: true };

/** @param {Partial<typeof logs & {since: string, until: string}>} [more] */
async function searched(more = {}) {
  const find = new MergedSearch(source, { ...logs, ...more }, "needle");
  opened.push(find);
  await until(() => find.complete);
  return find;
}

/** @param {InstanceType<typeof MergedSearch>} find */
const order = (find) => find.hits.map(({ node, at }) => `${node} ${at}`);

test("hits of logs that are searched one after the other stand by time", async () => {
  const asked = serve([
    hit({ node: "b", at: 0, ms: 1000 }),
    hit({ node: "b", at: 9, ms: 3000 }),
    { kind: "progress", node: "b", searched: 50, size: 100 },
    hit({ node: "a", at: 5, ms: 2000 }),
    hit({ node: "a", at: 7, ms: 3000 }),
    { kind: "progress", node: "a", searched: 100, size: 100 },
    { kind: "end", next: "c1", complete: true },
  ]);
  const find = await searched({ nodes: ["b", "a"], stream: "stdout" });
  assert.deepEqual(order(find), ["b 0", "a 5", "a 7", "b 9"]);
  assert.deepEqual(find.hits.map(({ position }) => position), [1, 2, 3, 4]);
  assert.deepEqual([...find.nodes], ["b", "a"]);
  assert.deepEqual(Object.fromEntries(asked[0]), { pattern: "needle", limit: "10000", nodes: "b,a", stream: "stdout" });
  // A line of the merged log is found in them, and what is behind it.
  const line = /** @type {any} */ ({ node: "a", attempt: 1, at: 5, position: 812, atMicros: 2_000_000 });
  assert.equal(find.hitIn(line)?.match, "needle");
  assert.equal(find.indexOf({ ...line, at: 6 }), 2);
  assert.equal(find.nearest({ ...line, atMicros: 9_000_000 })?.node, "b");
});

test("a log keeps its order when its clock was set back", async () => {
  serve([hit({ node: "a", at: 0, ms: 5000 }), hit({ node: "a", at: 3, ms: 1000 }), hit({ node: "b", at: 0, ms: 4000 }), { kind: "end", next: "c1", complete: true }]);
  assert.deepEqual(order(await searched()), ["b 0", "a 0", "a 3"]);
});

test("a bounded search continues from its cursor, and what comes again is there once", async () => {
  const asked = serve(
    [hit({ node: "a", at: 0, ms: 1 }), { kind: "end", next: "c1", complete: false }],
    [hit({ node: "a", at: 0, ms: 1 }), hit({ node: "a", at: 4, ms: 2 }), { kind: "end", next: "c2", complete: true }],
  );
  const find = await searched();
  assert.deepEqual(order(find), ["a 0", "a 4"]);
  assert.deepEqual(asked.map((query) => query.get("from")), [null, "c1"]);
});

test("only hits within the times count", async () => {
  serve([hit({ node: "a", at: 0, ms: 1000 }), hit({ node: "a", at: 1, ms: 2000 }), hit({ node: "a", at: 2, ms: 3000 }), hit({ node: "b", at: 3, ms: 0 }), { kind: "end", next: "c1", complete: true }]);
  const find = await searched({ since: new Date(1500).toISOString(), until: new Date(3000).toISOString() });
  assert.deepEqual(order(find), ["b 3", "a 1"]);
});

test("a wrong expression has its reason, and is not asked again", async () => {
  const asked = serve({ status: 400, body: { reason: "InvalidQuery", message: "m", field: "pattern", allowed: "a regular expression (the syntax): unclosed group" } });
  const find = await searched();
  assert.equal(find.wrong, "unclosed group");
  assert.equal(asked.length, 1);
});
