// The log of all nodes of a Run: live, by time, with a column and a choice of nodes.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { accessibilityProblems, launch, open, shoot, startDev, until, visit, WIDTHS } from "./harness.mjs";
import { lineRows, texts } from "./log-page.mjs";

/** @type {Awaited<ReturnType<typeof startDev>>} */
let dev;
/** @type {import("playwright-core").Browser} */
let browser;

const LINES = 2000;

const NODES = ["sim-1", "sim-2", "sim-3", "sim-4"].flatMap((node) => ["--node", node]);

before(async () => {
  dev = await startDev(["--nodes", "4"]);
  // The two streams have no order: what must be the last line is of the same stream as the lines before it.
  const script = `echo begun >&2; echo ::group::$SENTINEL_NODE; seq -f "%g of $SENTINEL_NODE" 1 ${LINES}; echo ::endgroup::; echo "\\033[32mready\\033[0m"; [ $SENTINEL_NODE != sim-3 ]`;
  const { code, output } = await dev.run("run", "--name", "many", ...NODES, "--", "sh", "-c", script);
  assert.equal(code, 1, output.slice(-2000));
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await dev?.stop();
});

/** @param {import("playwright-core").Page} page */
const names = async (page) => new Set(await lineRows(page).locator(".who").evaluateAll((all) => all.map((one) => one.getAttribute("title"))));

const many = "tasks/default/many/runs/1/log";

const isAtEnd = () => {
  const view = document.querySelector(".log-view");
  return view.scrollTop + view.clientHeight >= view.scrollHeight - 2 && document.body.innerText.includes("4 nodes ended");
};

/** Every line that is passed on the way from the first to the last, by node. @param {import("playwright-core").Page} page */
async function walk(page) {
  await page.keyboard.press("Home");
  await page.waitForSelector("li[aria-posinset='1']");
  /** @type {Map<string, Set<string>>} */
  const found = new Map();
  for (let n = 0; n < 2000; n += 1) {
    const shown = await lineRows(page).evaluateAll((all) => all.map((row) => [row.querySelector(".who").title, row.querySelector(".t").textContent]));
    assert.ok(shown.length <= 300);
    for (const [node, text] of shown) found.set(node, (found.get(node) ?? new Set()).add(text));
    // The end may be known before the last lines are on the screen.
    if (await page.evaluate(isAtEnd)) return found;
    const first = await page.locator(".log-view .rows li").first().getAttribute("data-position");
    // Below the last line that has come there is no page yet, and the key does nothing.
    let pressed = 0;
    await until(async () => {
      if (Date.now() - pressed > 1000) {
        pressed = Date.now();
        await page.keyboard.press("PageDown");
      }
      return (await page.locator(".log-view .rows li").first().getAttribute("data-position")) !== first || (await page.evaluate(isAtEnd));
    }, "another page");
  }
  assert.fail("no end");
}

for (const theme of ["light", "dark"]) {
  for (const width of WIDTHS) {
    test(`all nodes by time, ${theme}, ${width}`, async () => {
      const { page, context, problems } = await open(browser, { theme, width });
      await visit(page, dev, many);
      await page.waitForSelector("text=4 nodes ended");
      await page.waitForSelector(".c2 >> text=ready");
      assert.deepEqual(await accessibilityProblems(page), []);
      await shoot(page, `merged-${theme}-${width}`);
      assert.deepEqual(problems, []);
      await context.close();
    });
  }
}

/** Walks from the first line to the last, and sees every one. @param {import("playwright-core").Page} page */
async function walkSeesAll(page) {
  await visit(page, dev, many);
  await page.waitForSelector("text=4 nodes ended");
  const found = await walk(page);
  assert.deepEqual([...found.keys()].sort(), ["sim-1", "sim-2", "sim-3", "sim-4"]);
  const numbers = Array.from({ length: LINES }, (_, index) => index + 1);
  const missing = [...found].flatMap(([node, texts]) => numbers.map((n) => `${n} of ${node}`).filter((text) => !texts.has(text)));
  assert.equal(missing.length, 0, `${missing.length} lines are missing: ${missing.slice(0, 3)} … ${missing.at(-1)}`);
}

// A window that had come and was not drawn yet lent its places to the lines of the one before.
test("nothing is missing where frames are slow", async () => {
  const { page, context, problems } = await open(browser);
  await page.addInitScript(() => {
    const soon = window.requestAnimationFrame.bind(window);
    window.requestAnimationFrame = (draw) => soon(() => setTimeout(() => draw(performance.now()), 200));
  });
  await walkSeesAll(page);
  assert.deepEqual(problems, []);
  await context.close();
});

test("from the first line to the last nothing is missing, backwards too, and few lines are held", async () => {
  const { page, context, problems } = await open(browser);
  await walkSeesAll(page);
  // Back to the first line by the scroll bar.
  await page.locator(".log-view").hover();
  await until(async () => {
    await page.locator(".log-view").evaluate((view) => (view.scrollTop = 0));
    return (await texts(page)).some((text) => /^1 of sim-/.test(text));
  }, "the first line");
  const held = Number((await page.locator(".log-foot span").first().textContent()).match(/[\d,]+/)[0].replace(/,/g, ""));
  assert.ok(held <= 20_000, `${held} lines`);
  assert.deepEqual(problems, []);
  await context.close();
});

test("nodes are chosen, in the address, and one has its own log", async () => {
  const { page, context, problems } = await open(browser);
  await visit(page, dev, many);
  await page.waitForSelector("text=4 nodes ended");
  await page.keyboard.press("v");
  assert.deepEqual(await accessibilityProblems(page), []);
  await shoot(page, "merged-nodes");
  await page.uncheck("dialog label:has-text('sim-4') input");
  await page.uncheck("dialog label:has-text('sim-2') input");
  await page.click("dialog >> text=/^Show$/");
  await page.waitForURL(/node=sim-\[1,3\]/);
  await page.waitForSelector("text=2 nodes ended");
  for (const name of await names(page)) assert.ok(["sim-1", "sim-3"].includes(name), name);
  // The link of a line leads to the log of its node, and back.
  const row = lineRows(page).nth(5);
  const text = await row.locator(".t").textContent();
  const node = await row.locator(".who").getAttribute("title");
  await row.hover();
  await row.locator("a.n").click();
  await page.waitForURL((url) => url.searchParams.get("node") === node && url.searchParams.get("at").startsWith(`${node}.1.`));
  await page.waitForSelector(`li[aria-current]:has-text(${JSON.stringify(text)})`);
  await page.goBack();
  await page.waitForURL(/node=sim-\[1,3\]/);
  await page.waitForSelector(`.log-view li:has-text(${JSON.stringify(text)})`);
  await page.goForward();
  await page.waitForSelector("li[aria-current]");
  await page.selectOption("#log-node select", "");
  await page.waitForURL((url) => !url.searchParams.has("node"));
  await page.waitForSelector(".rows .who");
  assert.deepEqual(problems, []);
  await context.close();
});

for (const theme of ["light", "dark"]) {
  for (const width of WIDTHS) {
    test(`hits in all logs, and matches only, ${theme}, ${width}`, async () => {
      const { page, context, problems } = await open(browser, { theme, width });
      await visit(page, dev, `${many}?q=${encodeURIComponent("^(7|1500) of sim-[13]$")}`);
      await page.waitForSelector("#find-said >> text=/^4 on 2 nodes$/");
      // Each leads to its place among the lines of all nodes, in the order of time. The first depends on what is on the screen.
      await page.keyboard.press("n");
      await page.waitForSelector("#find-said >> text=/^[1-4] of 4 on 2 nodes$/");
      let n = Number((await page.textContent("#find-said"))[0]);
      const seen = [];
      while (seen.filter(Boolean).length < 4 || n !== 4) {
        n = (n % 4) + 1;
        await page.keyboard.press("n");
        await page.waitForSelector(`#find-said >> text=/^${n} of 4/`);
        const row = page.locator(".log-view li:has(mark.now)");
        await row.waitFor();
        seen[n - 1] = await row.locator(".t").textContent();
        assert.ok((await lineRows(page).count()) > 4, "other lines are around it");
      }
      assert.deepEqual([...seen].sort(), ["1500 of sim-1", "1500 of sim-3", "7 of sim-1", "7 of sim-3"]);
      await page.keyboard.press("N");
      await page.waitForSelector("#find-said >> text=/^3 of 4/");
      await page.locator(".log-view li:has(mark.now)").waitFor();
      assert.deepEqual(await accessibilityProblems(page), []);
      await shoot(page, `merged-hits-${theme}-${width}`);
      await page.keyboard.press("m");
      await page.waitForURL(/show=matches/);
      await until(async () => (await lineRows(page).count()) === 4, "four matches");
      assert.deepEqual(await texts(page), seen);
      assert.deepEqual(await names(page), new Set(["sim-1", "sim-3"]));
      assert.deepEqual(await accessibilityProblems(page), []);
      await shoot(page, `merged-matches-${theme}-${width}`);
      await page.keyboard.press("m");
      await page.waitForURL((url) => !url.searchParams.has("show") && url.searchParams.has("near"));
      await page.locator(".log-view li:has(mark.now)", { hasText: seen[2] }).waitFor();
      assert.ok((await lineRows(page).count()) > 4);
      // The link shows the same to somebody else.
      await page.reload();
      await page.locator(".log-view li:has(mark)", { hasText: seen[2] }).waitFor();
      assert.deepEqual(problems, []);
      await context.close();
    });
  }
}

test("a search of all logs is within the nodes that are chosen, says what is wrong, and goes along to one node", async () => {
  const { page, context, problems } = await open(browser);
  await visit(page, dev, `${many}?node=sim-[1,2]`);
  await page.waitForSelector("text=2 nodes ended");
  await page.keyboard.press("/");
  await page.keyboard.type("needle(");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".find-wrong >> text=/unclosed group/");
  assert.deepEqual(await accessibilityProblems(page), []);
  await page.fill("#filter", "^19.. of");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#find-said >> text=/200 on 2 nodes$/");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#find-said >> text=/^\\d+ of 200 on 2 nodes$/");
  const row = page.locator(".log-view li:has(mark.now)");
  await row.waitFor();
  const text = await row.locator(".t").textContent();
  await row.hover();
  await row.locator("a.n").click();
  await page.waitForURL(/node=sim-[12]&at=/);
  await page.waitForSelector("#find-said >> text=/100$/");
  await page.waitForSelector(`li[aria-current]:has(mark):has-text(${JSON.stringify(text)})`);
  assert.deepEqual(problems.filter((problem) => !/status of 400/.test(problem)), []);
  await context.close();
});

test("a group hides the lines of its node only", async () => {
  const { page, context, problems } = await open(browser);
  await visit(page, dev, `${many}?node=sim-[1,2]`);
  await page.waitForSelector("text=2 nodes ended");
  await page.keyboard.press("Home");
  await page.waitForSelector("li.group");
  // The lines of one may all be behind those of the other.
  let node = "";
  await until(async () => (node = (await texts(page)).join("\n").match(/ of (sim-\d)$/m)?.[1] ?? ""), "a line of a group");
  await page.click(`li.group:has-text("${node}") button`);
  await until(async () => (await texts(page)).every((text) => !text.endsWith(` of ${node}`)), "no line of the group");
  assert.match(await page.locator("li.group small").first().textContent(), /lines/);
  assert.deepEqual(problems, []);
  await context.close();
});

test("what comes is followed, pauses, and goes on", async () => {
  const { page, context, problems } = await open(browser);
  const gate = `${dev.shared}/gate`;
  const script = `seq 1 200; until [ -e ${gate} ]; do sleep 0.1; done; seq -f 'after %g' 1 100`;
  const started = await dev.run("run", "--name", "live", ...NODES, "--detach", "--", "sh", "-c", script);
  assert.equal(started.code, 0, started.output);
  await visit(page, dev, "tasks/default/live/runs/1/log");
  await page.waitForSelector(".rows .who");
  await until(async () => (await page.locator(".log-foot").textContent()).includes("800 lines"), "what there is");
  await page.keyboard.press("PageUp");
  await page.waitForSelector("text=To the end");
  const before = await lineRows(page).first().getAttribute("data-position");
  const touched = await dev.run("run", "--name", "touch", "--node", "sim-1", "--", "touch", gate);
  assert.equal(touched.code, 0, touched.output);
  await page.waitForSelector("text=400 new lines");
  assert.equal(await lineRows(page).first().getAttribute("data-position"), before);
  await shoot(page, "merged-paused");
  await page.keyboard.press("End");
  await page.waitForSelector("text=4 nodes ended");
  assert.match(await lineRows(page).last().locator(".t").textContent(), /^after 100$/);
  assert.deepEqual(problems, []);
  await context.close();
});

test("the log of all nodes is saved as text and as JSON", async () => {
  const { page, context, problems } = await open(browser, {});
  await visit(page, dev, `${many}?node=sim-[1-2]&stream=stdout`);
  await page.waitForSelector("text=2 nodes ended");
  for (const [name, holds] of /** @type {[string, RegExp][]} */ ([[".txt", /^sim-[12] \| \d{4}-\d\d-\d\dT\S+Z ::group::sim-[12]\n/], [".jsonl", /^\{"node":"sim-[12]","attempt":1,/]])) {
    await page.click("text=Download…");
    assert.deepEqual(await accessibilityProblems(page), []);
    await shoot(page, "merged-download");
    const waiting = page.waitForEvent("download");
    await page.click(`dialog button:has-text("${name}")`);
    const saved = await waiting;
    assert.equal(saved.suggestedFilename(), `many-1${name}`);
    const text = await readFile(await saved.path(), "utf8");
    assert.match(text, holds);
    const lines = text.trimEnd().split("\n");
    assert.equal(lines.length, 2 * (LINES + 3) + (name === ".jsonl" ? 1 : 0));
    for (const node of ["sim-1", "sim-2"]) assert.equal(lines.filter((line) => line.includes(` of ${node}`)).length, LINES);
    if (name === ".jsonl") assert.deepEqual(JSON.parse(lines[lines.length - 1]), { kind: "end", ended: true });
  }
  assert.deepEqual(problems, []);
  await context.close();
});
