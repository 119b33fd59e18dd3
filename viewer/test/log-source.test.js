// The window of a log and its stream, against a server of this file that cuts connections.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { until } from "./browser.js";

const { LogSource, lastLine } = await import("../page/log-source.js");

/** @typedef {import("../page/types.js").Entry} Entry */

/** A log of lines of ten bytes; every hundredth is a gap. @param {number} n @returns {Entry} */
const entryAt = (n) => (n % 100 === 50 ? { position: (n - 1) * 10, dropped: 10, reason: "full" } : { line: n, position: (n - 1) * 10, stream: n % 7 === 3 ? "stderr" : "stdout", atMicros: n * 1000, text: `line ${n}` });

/** The same line without its end. @param {number} n @returns {Entry} */
const openAt = (n) => ({ ...entryAt(n), text: "li", open: true });

/** @typedef {{lines: number, ended: boolean, cutEvery?: number, open?: boolean, most?: number, busy?: number, unfinished?: number}} Served `most` lines fill an answer; so many requests are refused as `busy`; the end of line `unfinished` is not there */

/** @param {Served} log */
function serve(log) {
  const asked = /** @type {string[]} */ ([]);
  /** @param {number} from @param {number} count @param {string | null} stream */
  const take = (from, count, stream) => {
    const lines = [];
    let n = from;
    for (; n <= log.lines && lines.length < count; n += 1) {
      const entry = n === log.unfinished ? openAt(n) : entryAt(n);
      if (!stream || !("stream" in entry) || entry.stream === stream) lines.push(entry);
    }
    const isWithin = log.unfinished && log.unfinished >= from && log.unfinished < n;
    return { attempt: 1, lines, next: ((isWithin && log.unfinished ? log.unfinished : n) - 1) * 10, totalLines: log.lines, end: log.lines * 10, ended: log.ended };
  };
  globalThis.fetch = /** @type {any} */ (
    async (/** @type {string} */ url, /** @type {RequestInit} */ init) => {
      asked.push(url);
      await new Promise((done) => setTimeout(done, 1));
      if (log.busy) {
        log.busy -= 1;
        return Response.json({ reason: "Unavailable", message: "too many answers are not read yet" }, { status: 503 });
      }
      const at = new URL(url, "http://x");
      const query = at.searchParams;
      const stream = query.get("stream");
      if (!at.pathname.endsWith("/events")) {
        const count = Math.min(Number(query.get("count")), log.most ?? Infinity);
        const from = query.has("tail") ? Math.max(1, log.lines - Number(query.get("tail")) + 1) : query.has("line") ? Number(query.get("line")) : query.has("since") ? Math.min(log.lines + 1, Date.parse(query.get("since") ?? "")) : Math.floor(Number(query.get("position")) / 10) + 1;
        return Response.json(take(from, count, stream));
      }
      let next = Number(new Headers(init.headers).get("last-event-id") ?? query.get("from"));
      let sent = 0;
      let { unfinished } = log;
      return new Response(
        new ReadableStream({
          async pull(controller) {
            await new Promise((done) => setTimeout(done, 1));
            if (init.signal?.aborted) return controller.error(new Error("aborted"));
            if (log.cutEvery && sent >= log.cutEvery) return controller.error(new Error("cut"));
            if (unfinished && !log.unfinished) {
              controller.enqueue(new TextEncoder().encode(`event: lines\nid: ${next}\ndata: ${JSON.stringify({ lines: [entryAt(unfinished)] })}\n\n`));
              unfinished = undefined;
            }
            const found = take(next / 10 + 1, 7, stream);
            if (found.lines.length > 0) {
              sent += 1;
              // A line whose end is not there is sent, and again when it is.
              const last = found.lines.at(-1);
              const open = log.open && last && "line" in last && sent % 3 === 0;
              if (open) found.lines[found.lines.length - 1] = { ...last, text: "li", open: true };
              next = open ? last.position : next + found.lines.length * 10;
              const id = log.unfinished ? Math.min(next, (log.unfinished - 1) * 10) : next;
              controller.enqueue(new TextEncoder().encode(`event: lines\nid: ${id}\ndata: ${JSON.stringify({ lines: found.lines })}\n\n`));
            } else if (log.ended) {
              controller.enqueue(new TextEncoder().encode("event: end\ndata: {}\n\n"));
              controller.close();
            } else controller.enqueue(new TextEncoder().encode(": alive\n\n"));
          },
        }),
      );
    }
  );
  return asked;
}

/** Every entry once, in order. @param {Entry[]} entries @param {string} [stream] */
function assertWhole(entries, stream) {
  if (entries.length === 0) return;
  const first = entries[0].position / 10 + 1;
  const expected = [];
  for (let n = first; expected.length < entries.length; n += 1) {
    const entry = entryAt(n);
    if (!stream || !("stream" in entry) || entry.stream === stream) expected.push(entry.position);
  }
  assert.deepEqual(entries.map((entry) => entry.position), expected);
}

/** @type {InstanceType<typeof LogSource>[]} */
const opened = [];
const open = (stream = "both") => {
  opened.push(new LogSource({ uid: "u", run: 1, node: "n", attempt: 1, stream }));
  return opened[opened.length - 1];
};
const quick = Math.random;
Math.random = () => -1.49; // the wait between two attempts is a hundredth
after(() => {
  Math.random = quick;
  for (const source of opened) source.close();
});

test("the tail, and everything before it in windows", async () => {
  serve({ lines: 5000, ended: true });
  const source = open();
  await source.tail();
  assert.equal(lastLine(source.entries), 5000);
  assert.ok(source.atEnd && !source.atStart);
  for (let n = 0; n < 10 && !source.atStart; n += 1) {
    await source.earlier();
    assertWhole(source.entries);
    assert.ok(source.entries.length <= 3000);
  }
  assert.ok(source.atStart && !source.atEnd);
  for (let n = 0; n < 10 && !source.atEnd; n += 1) {
    await source.more();
    assertWhole(source.entries);
    assert.ok(source.entries.length <= 3000);
  }
  assert.ok(source.atEnd);
});

test("a line and a position in the middle", async () => {
  serve({ lines: 1_000_000, ended: true });
  const source = open();
  await source.line(500_000);
  assert.ok(source.entries.some((entry) => "line" in entry && entry.line === 500_000));
  await source.position(2_500_000);
  assertWhole(source.entries);
  assert.ok(source.entries.some((entry) => entry.position === 2_500_000));
  assert.ok(source.entries[0].position < 2_500_000);
  await Promise.all([source.more(), source.earlier(), source.more(), source.earlier()]);
  assertWhole(source.entries);
});

test("windows at both ends that are asked for at once leave no hole", async () => {
  serve({ lines: 1_000_000, ended: true });
  const source = open();
  await source.position(5_000_000);
  await source.more();
  assert.equal(source.entries.length, 3000);
  for (let n = 0; n < 6; n += 1) {
    await Promise.all(n % 2 === 0 ? [source.more(), source.earlier()] : [source.earlier(), source.more()]);
    assertWhole(source.entries);
    assert.ok(source.entries.length <= 3000);
  }
});

test("of long lines few are an answer: the end is the end, and nothing is left out", async () => {
  serve({ lines: 5000, ended: true, most: 64 });
  const source = open();
  await source.tail();
  assert.equal(lastLine(source.entries), 5000);
  assert.ok(source.atEnd && !source.atStart);
  for (let n = 0; n < 200 && !source.atStart; n += 1) {
    await source.earlier();
    assertWhole(source.entries);
    assert.ok(source.entries.length <= 3000);
  }
  assert.ok(source.atStart);
  await source.line(2500);
  assertWhole(source.entries);
  assert.ok(source.entries.some((entry) => "line" in entry && entry.line === 2500));
  assert.ok(source.entries.length <= 700 && source.near < 30);
});

test("times bound the entries, their count and what is asked for", async () => {
  const asked = serve({ lines: 9000, ended: false });
  const log = { uid: "u", run: 1, node: "n", attempt: 1, stream: "both", since: new Date(2001).toISOString(), until: new Date(6001).toISOString() };
  const source = new LogSource(log);
  opened.push(source);
  await source.tail();
  assert.equal(lastLine(source.entries), 6000);
  assert.ok(source.atEnd && source.ended);
  assert.deepEqual([source.base, source.extent], [2001, 4000]);
  while (!source.atStart) await source.earlier();
  assertWhole(source.entries);
  assert.deepEqual([source.entries[0].position, source.ordinal(source.entries[0])], [20_000, 1]);
  while (!source.atEnd) await source.more();
  assertWhole(source.entries);
  assert.equal(lastLine(source.entries), 6000);
  assert.equal(asked.some((url) => url.includes("/events")), false);
});

test("a time that is still to come ends what is followed", async () => {
  const log = { lines: 10, ended: false };
  serve(log);
  const source = new LogSource({ uid: "u", run: 1, node: "n", attempt: 1, stream: "both", until: new Date(31).toISOString() });
  opened.push(source);
  await source.tail();
  assert.ok(!source.ended);
  log.lines = 90;
  await until(() => source.ended);
  assert.deepEqual([lastLine(source.entries), source.extent, source.stream.value], [30, 30, null]);
});

test("one stream has no hole where windows meet", async () => {
  serve({ lines: 20_000, ended: true });
  const source = open("stderr");
  await source.line(15_000);
  for (let n = 0; n < 4; n += 1) {
    await source.earlier();
    assertWhole(source.entries, "stderr");
  }
});

test("after a hundred cut connections no line is missing and none is there twice", async () => {
  const log = { lines: 10, ended: false, cutEvery: 3, open: true };
  const asked = serve(log);
  const source = open();
  await source.tail();
  for (let n = 0; n < 100; n += 1) {
    log.lines += 21;
    await until(() => source.entries.at(-1)?.position === (log.lines - 1) * 10, `line ${log.lines} did not come`);
    assertWhole(source.entries);
  }
  assert.ok(asked.filter((url) => url.includes("/events")).length > 100);
  assert.equal(source.entries.some((entry) => "open" in entry && entry.open && entry.text === "li" && "line" in entry && entry.line !== log.lines), false);
  log.ended = true;
  await until(() => source.ended);
});

test("a busy operator is asked again, and the line that was wanted is shown", async () => {
  const log = { lines: 5000, ended: true, busy: 0 };
  serve(log);
  const source = open();
  await source.tail();
  log.busy = 2;
  await source.line(1);
  assert.equal(log.busy, 0);
  assert.equal(source.entries[0].position, 0);
  assert.equal(source.away.value, 0);
});

test("what is not looked at does not come", async () => {
  const log = { lines: 100, ended: false };
  serve(log);
  const source = open();
  await source.tail();
  log.lines = 4000;
  await until(() => {
    source.settle(false);
    return !source.atEnd;
  });
  assert.ok(source.entries.length <= 3000);
  assertWhole(source.entries);
  assert.equal(source.stream.value, null);
  await source.more();
  assertWhole(source.entries);
});

test("a line whose end comes after hundreds of others gets it in its place, and is announced", async () => {
  const log = /** @type {Served} */ ({ lines: 10, ended: false, unfinished: 9 });
  serve(log);
  const source = open();
  await source.tail();
  log.lines = 900;
  await until(() => lastLine(source.entries) === 900, "the lines behind it");
  assert.deepEqual([source.entries[8], source.late], [openAt(9), []]);
  log.unfinished = undefined;
  await until(() => source.late.length > 0, "its end");
  assert.deepEqual([source.entries[8], source.late], [entryAt(9), [entryAt(9)]]);
  assertWhole(source.entries);
});

test("lines that come again because an earlier one has no end are there once", async () => {
  const log = /** @type {Served} */ ({ lines: 10, ended: false, unfinished: 9 });
  const asked = serve(log);
  const source = open();
  await source.tail();
  for (let n = 0; n < 3; n += 1) {
    log.lines += 241;
    await until(() => lastLine(source.entries) === log.lines, `line ${log.lines} did not come`);
    const before = asked.length;
    log.cutEvery = 1;
    await until(() => asked.length > before, "a stream that was cut");
    log.cutEvery = undefined;
  }
  assertWhole(source.entries);
  assert.deepEqual(source.late, []);
});

test("a line without its end does not stop who reads on below it", async () => {
  serve({ lines: 9000, ended: false, unfinished: 500 });
  const source = open();
  await source.line(1);
  assert.ok(!source.atEnd);
  for (let n = 0; n < 12 && !source.atEnd; n += 1) await source.more();
  assert.ok(source.atEnd);
  assert.equal(lastLine(source.entries), 9000);
  assertWhole(source.entries);
  await source.tail();
  assert.equal(source.entries.length, 1000);
});

test("a window that came too late is not shown, and what is shown stays", async () => {
  serve({ lines: 90_000, ended: true });
  const source = open();
  await source.tail();
  const home = source.line(1);
  source.stay();
  assert.equal(await home, false);
  assert.equal(lastLine(source.entries), 90_000);
  const [earlier, later] = await Promise.all([source.line(1), source.line(50_000)]);
  assert.deepEqual([earlier, later], [false, true]);
  assert.ok(source.entries.some((entry) => "line" in entry && entry.line === 50_000));
});
