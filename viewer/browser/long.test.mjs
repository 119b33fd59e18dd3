// A long log in the page, and a log whose connection is cut again and again. Short here; `viewer/browse --long` has ten
// million lines and a hundred cuts.

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, open, shoot, startDev, until } from "./harness.mjs";
import { api, createTask, leaf, logUrl, rowOf, rows, startProxy, verdict } from "./log-page.mjs";

const LINES = Number(process.env.SENTINEL_TEST_LINES ?? 300_000);
const CUTS = Number(process.env.SENTINEL_TEST_CUTS ?? 10);

/** Most rows in the document. */
const MOST = 300;

/** A machine that needs so much longer than an idle one has something else to do; what a page that reads the whole log needs is more. */
const SCREEN_MS = 10_000;

/** @type {Awaited<ReturnType<typeof startDev>>} */
let dev;
/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  dev = await startDev(["--nodes", "1"]);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await dev?.stop();
});

/** Notes in the page when the first row is drawn, and the most rows that there ever are. */
const watchRows = () => {
  window.firstRow = 0;
  window.mostRows = 0;
  new MutationObserver(() => {
    const count = document.querySelectorAll("[data-position]").length;
    window.mostRows = Math.max(window.mostRows, count);
    if (count > 0) window.firstRow ||= performance.now();
  }).observe(document, { childList: true, subtree: true });
};

/** @param {string} what @param {number} ms */
const say = (what, ms) => console.log(`long log: ${what}: ${Math.round(ms)} ms`);

/** The time of an action until a line is there with its text, which is its number. @param {import("playwright-core").Page} page @param {number} line @param {() => Promise<unknown>} act */
async function timed(page, line, act) {
  const begun = performance.now();
  await act();
  await page.waitForSelector(rowOf(line));
  const took = performance.now() - begun;
  const found = (await rows(page)).find((row) => row.line === line);
  assert.equal(found?.text, String(line));
  return took;
}

test(`a log of ${LINES} lines opens at once, and every place of it is near`, async () => {
  const begun = performance.now();
  const task = await createTask(dev, "long", { all: true }, ["seq", String(LINES)]);
  assert.equal(await verdict(dev, "long", 280_000), "Complete");
  say(`the command with ${LINES} lines, until its Run has ended`, performance.now() - begun);
  const path = `executions/${task.metadata.uid}/1/sim-1/lines`;
  // The end of a command is known before its last output has come.
  await until(async () => (await api(dev, `${path}?tail=1`)).ended, "all of the output", 280_000);
  const asked = performance.now();
  assert.equal((await api(dev, `${path}?tail=1000`)).totalLines, LINES);
  say("the last thousand lines by the API", performance.now() - asked);

  const { page, context, problems } = await open(browser);
  await page.addInitScript(watchRows);
  await page.goto(logUrl(dev, "long", "sim-1"));
  await page.waitForSelector(rowOf(LINES));
  const first = await page.evaluate(() => window.firstRow);
  say("from the address to the first screen", first);
  assert.ok(first < SCREEN_MS, `the first screen took ${first} ms`);
  await shoot(page, "long-end");

  const middle = LINES / 2;
  const jump = await timed(page, middle, async () => {
    await page.keyboard.press(":");
    await page.fill("[placeholder='Line or time']", String(middle));
    await page.keyboard.press("Enter");
  });
  say(`to line ${middle}`, jump);
  await shoot(page, "long-middle");
  say("to the end", await timed(page, LINES, () => page.keyboard.press("End")));
  say("to the beginning", await timed(page, 1, () => page.keyboard.press("Home")));
  // The bar at three quarters of its way is at three quarters of the log.
  const dragged = performance.now();
  await page.$eval(".log-view", (view) => (view.scrollTop = (view.scrollHeight - view.clientHeight) * 0.75));
  const near = ({ line }) => Math.abs(line - LINES * 0.75) < LINES / 1000 + MOST;
  await until(async () => (await rows(page)).some(near), "the lines at three quarters");
  say("by the bar to three quarters", performance.now() - dragged);
  for (const { line, text } of await rows(page)) assert.equal(text, String(line));
  const most = await page.evaluate(() => window.mostRows);
  assert.ok(most > 20 && most <= MOST, `${most} rows in the document`);
  console.log(`long log: at most ${most} rows in the document`);
  assert.deepEqual(problems, []);
  await context.close();
});

test(`after ${CUTS} cut connections no line is missing and none is there twice`, async () => {
  const proxy = await startProxy(dev.base);
  try {
    const stop = join(dev.shared, "enough");
    const script = `n=0; while [ ! -e '${stop}' ]; do n=$((n + 1)); echo "number $n of many"; sleep 0.05; done`;
    const task = await createTask(dev, "cut", { all: true }, ["sh", "-c", script]);
    const { page, context } = await open(browser);
    const questions = [];
    page.on("request", (request) => request.url().includes("/lines?") && questions.push(request.url()));
    const path = `executions/${task.metadata.uid}/1/sim-1/lines?tail=1`;
    await until(async () => (await api(dev, path).catch(() => null))?.totalLines > 2, "the first lines");
    await page.goto(logUrl(dev, "cut", "sim-1", proxy.base));
    await page.waitForSelector(rowOf(3));
    const last = async () => (await rows(page)).at(-1)?.line ?? 0;
    for (let n = 0; n < CUTS; n += 1) {
      const before = await last();
      await proxy.cut();
      // So that each cut is one of a stream that had gone on.
      await until(async () => (await last()) > before + 1, `a line behind ${before}`);
    }
    await writeFile(stop, "");
    assert.equal(await verdict(dev, "cut"), "Complete");
    const { totalLines } = await api(dev, path);
    await until(async () => (await last()) === totalLines, `line ${totalLines} in the page`);
    const held = await leaf(page, totalLines);
    assert.deepEqual(held.map(({ text }) => text), Array.from({ length: totalLines }, (_, index) => `number ${index + 1} of many`));
    assert.equal(proxy.cuts(), CUTS);
    // The page has them by the stream: it has asked for a window only when it was opened.
    assert.equal(questions.length, 1, questions.join("\n"));
    console.log(`long log: ${CUTS} cuts, ${totalLines} lines, none missing, none twice`);
    await context.close();
  } finally {
    await proxy.stop();
  }
});
