// A Task with two Runs that differ, the Execution that was tried twice, and the form that the server checks.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { WIDTHS, accessibilityProblems, launch, open, shoot, startDev, until, visit } from "./harness.mjs";

/** What a node says depends on the Run, which the file of the node counts. */
const script = `f=$PWD/$SENTINEL_NODE.$SENTINEL_TASK
n=$(cat "$f" 2>/dev/null || echo 0); n=$((n+1)); echo $n > "$f"
case $SENTINEL_NODE:$n in
sim-3:1) echo "cp: No space left on device" >&2; exit 3;;
sim-5:2) echo "cp: No space left on device" >&2; exit 3;;
sim-7:2) echo "version 3.0.1";;
*) echo "version 3.0.2";;
esac`;

/** Fails as often as the number of the node is below four: the third attempt is the last. */
const retried = `f=$PWD/$SENTINEL_NODE.$SENTINEL_TASK
n=$(cat "$f" 2>/dev/null || echo 0); n=$((n+1)); echo $n > "$f"
[ $n -gt $((4 - \${SENTINEL_NODE#sim-})) ]`;

/** @type {Awaited<ReturnType<typeof startDev>>} */
let dev;
/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  dev = await startDev(["--nodes", "12"]);
  const first = await dev.run("run", "--name", "upgrade", "--all", "--ttl", "1h", "--workdir", dev.shared, "--", "sh", "-c", script);
  assert.equal(first.code, 3, first.output);
  const second = await dev.run("rerun", "upgrade", "--follow");
  assert.equal(second.code, 3, second.output);
  const tried = await dev.run("run", "--name", "tried", "--node", "sim-2", "--retry", "1", "--ttl", "1h", "--", "sh", "-c", "echo attempt; exit 4");
  assert.equal(tried.code, 4, tried.output);
  const flaky = await dev.run("run", "--name", "flaky", ...["sim-1", "sim-2", "sim-3", "sim-4"].flatMap((node) => ["--node", node]), "--retry", "2", "--ttl", "1h", "--workdir", dev.shared, "--", "sh", "-c", retried);
  assert.equal(flaky.code, 1, flaky.output);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await dev?.stop();
});

/** Looks at a page in both themes and widths. @param {string} path @param {string} name @param {(page: import("playwright-core").Page) => Promise<unknown>} ready */
async function looks(path, name, ready) {
  for (const theme of /** @type {const} */ (["light", "dark"])) {
    for (const width of WIDTHS) {
      const { page, context, problems } = await open(browser, { theme, width });
      await visit(page, dev, path);
      await ready(page);
      assert.deepEqual(await accessibilityProblems(page), [], `${name} ${theme} ${width}`);
      await shoot(page, `${name}-${theme}-${width}`);
      // What the server refuses in a dry run is what the form is for.
      assert.deepEqual(problems.filter((problem) => !/status of 4(09|22).*\/api\/v1\/tasks/.test(problem)), []);
      await context.close();
    }
  }
}

test("a Run is compared with the one before", async () => {
  await looks("tasks/default/upgrade/runs/2?against=run:1", "task-compare", async (page) => {
    await page.waitForSelector("text=was failed, exit 3");
    await page.waitForSelector("text=/nodes did the same as in Run 1/");
    await page.waitForSelector(".out .add");
  });
  const { page, context } = await open(browser);
  await visit(page, dev, "tasks/default/upgrade");
  await page.selectOption("select >> nth=0", "run:1");
  await page.waitForSelector("text=was succeeded");
  assert.match(page.url(), /against=run:1/);
  const heads = await page.locator(".fold summary").allTextContents();
  assert.equal(heads.length, 3, heads.join("\n"));
  assert.ok(heads[0].includes("sim-5") && heads[0].includes("Failed, exit 3"), heads[0]);
  await page.selectOption("select >> nth=0", "");
  await page.waitForSelector("text=1 line differs");
  await page.click("aside >> text=Compare");
  await page.waitForSelector("text=output differs");
  await context.close();
});

test("failed nodes are run again by a new Task that is seen before it runs", async () => {
  await looks("tasks/new?from=default/upgrade&failed=2", "form-failed", (page) => page.waitForSelector("text=on the 1 node that did not succeed in Run 2"));
  const { page, context, problems } = await open(browser);
  await visit(page, dev, "tasks/default/upgrade");
  await page.click("text=Rerun failed");
  await page.waitForSelector("text=1 node matches");
  assert.equal(await page.inputValue("[data-path='metadata.name']"), "upgrade-rerun-2");
  assert.equal(await page.inputValue("[data-path='spec.targets.nodeNames']"), "sim-5");
  await page.click("text=Create and run");
  await page.waitForSelector("text=The node succeeded.");
  assert.match(page.url(), /tasks\/default\/upgrade-rerun-2$/);
  assert.deepEqual(problems, []);
  await context.close();
});

test("an Execution shows each of its attempts", async () => {
  await looks("tasks/default/tried/runs/1/nodes/sim-2", "execution", async (page) => {
    await page.waitForSelector("text=Attempt 1 started");
    await page.waitForSelector("text=Attempt 2 started");
  });
  const { page, context, problems } = await open(browser);
  await visit(page, dev, "tasks/default/tried/runs/1/nodes/sim-2");
  await page.click(".tabs >> text=Attempt 1");
  await page.waitForSelector(".uses");
  await page.waitForSelector("aside >> text=Exit code");
  assert.match((await page.locator("aside").textContent()) ?? "", /\/sim-2\/1/);
  assert.deepEqual(problems, []);
  await context.close();
});

test("the timeline has a bar for each attempt", async () => {
  await looks("tasks/default/flaky/runs/1?tab=timeline", "timeline", async (page) => {
    await page.waitForSelector("text=1 node that did not succeed, 2 that were tried again");
    // sim-1 fails three times, sim-2 twice before it succeeds, and sim-3 once.
    await until(async () => (await page.locator(".lanes[role=list] .lane rect:not(.hit, .wait)").count()) === 8, "eight bars");
  });
  const { page, context, problems } = await open(browser);
  /** @type {string[]} */
  const asked = [];
  page.on("request", (request) => /executions\/[^/?]+\/1\/sim-/.test(request.url()) && asked.push(request.url()));
  await visit(page, dev, "tasks/default/flaky/runs/1?tab=timeline");
  await until(async () => (await page.locator(".lanes[role=img] .lane rect:not(.hit, .wait)").count()) === 9, "nine bars of four nodes");
  const lane = page.locator(".lanes[role=list] .lane", { has: page.locator("title >> text=/^sim-2, Succeeded, .*, 3 attempts$/") });
  assert.deepEqual(await lane.locator("rect:not(.hit, .wait)").evaluateAll((all) => all.map((bar) => bar.getAttribute("class"))), ["bad", "bad", "ok"]);
  assert.equal(await lane.locator("rect.wait").count() >= 2, true, "it waited between them");
  // One question for each node that was tried again, and none for the one that was not.
  assert.equal(asked.length, 3, asked.join("\n"));
  await lane.locator("rect.bad").first().click();
  await page.waitForURL(/nodes\/sim-2\?attempt=1$/);
  await page.waitForSelector(".tabs [aria-current] >> text=Attempt 1");
  await page.goBack();
  await lane.focus();
  await page.keyboard.press("Enter");
  await page.waitForURL(/nodes\/sim-2$/);
  assert.deepEqual(problems, []);
  await context.close();
});

test("the server checks the form while it is written, and each error stands beside its field", async () => {
  await looks("tasks/new", "form-errors", async (page) => {
    await page.fill("[data-path='metadata.name']", "Not A Name");
    await page.waitForSelector("label:has([data-path='metadata.name']) .error");
    await page.fill("[data-path='spec.timeouts.run']", "5 minutes");
    await page.waitForSelector("label:has([data-path='spec.timeouts.run']) .error >> text=such as 5m");
    // What nobody has touched is not wrong yet.
    assert.equal(await page.locator("label:has([data-path='spec.run.command']) .error").count(), 0);
  });
  const { page, context } = await open(browser);
  await visit(page, dev, "tasks/new");
  await page.fill("[data-path='metadata.name']", "upgrade");
  await page.click("text=By name");
  await page.fill("[data-path='spec.targets.nodeNames']", "sim-[1-3]");
  await page.waitForSelector("text=3 nodes match");
  await page.fill("[data-path='spec.run.command']", "true");
  // The name is in use: only the server knows.
  await page.waitForSelector("label:has([data-path='metadata.name']) .error");
  await page.fill("[data-path='metadata.name']", "checked");
  await page.waitForSelector(".error", { state: "detached" });
  const before = await dev.run("get", "task", "checked");
  assert.equal(before.code, 1, "a dry run stores nothing");
  await page.click("text=Create and run");
  await page.waitForSelector("text=All 3 nodes succeeded.");
  await context.close();
});
