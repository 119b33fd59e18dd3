// The story of the page, and a page that stays open while the operator restarts, on an operator with real stores and agents.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { accessibilityProblems, launch, open, sharedDirectory, shoot, until } from "./harness.mjs";
import { api, createTask, leaf, logUrl, rowOf, rows, verdict } from "./log-page.mjs";
import { missing, startStores } from "./stores.mjs";

/** @type {Awaited<ReturnType<typeof startStores>>} */
let stores;
/** @type {import("playwright-core").Browser} */
let browser;
let directory = "";

before(async () => {
  if (missing) return;
  stores = await startStores(["a", "b", "c", "d", "e", "f"]);
  directory = await mkdtemp(join(tmpdir(), "sentinel-viewer-"));
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await stores?.stop();
  if (directory) await rm(directory, { recursive: true, force: true });
});

const failing = "No space left on device";

test("real stores: from the first page to the failing line", { skip: missing }, async () => {
  const { b, c } = stores.nodes;
  // One stream, since two have no order, and the page shows the end.
  const script = `case $SENTINEL_NODE in
${c}) exec 2>&1; for n in $(seq 1 200); do echo "unpacking file $n"; done; echo "cp: error writing '/var/lib/app': ${failing}" >&2; exit 3;;
${b}) echo "version 3.0.1";;
*) echo "version 3.0.2";;
esac`;
  await createTask(stores, "upgrade", { nodeNames: Object.values(stores.nodes) }, ["sh", "-c", script]);
  assert.equal(await verdict(stores, "upgrade"), "Failed");
  const { page, context, problems } = await open(browser);
  await page.goto(stores.base);
  await page.click("text=upgrade");
  await page.waitForSelector(`text=${failing}`);
  await page.waitForSelector("text=differs");
  assert.deepEqual(await accessibilityProblems(page), []);
  await shoot(page, "stores-outputs");
  await page.click(`[aria-label='log of ${c}']`);
  await page.waitForSelector(`text=${failing}`);
  await page.fill("#filter", "file 1[0-9]{2}$");
  await page.keyboard.press("Enter");
  await page.waitForSelector("text=/^(\\d+ of )?100$/");
  const all = await leaf(page, 201);
  const unpacking = Array.from({ length: 200 }, (_, index) => `unpacking file ${index + 1}`);
  assert.deepEqual(all.map(({ text }) => text), [...unpacking, `cp: error writing '/var/lib/app': ${failing}`]);
  await shoot(page, "stores-log");
  await page.goto(`${stores.base}/fleet`);
  for (const name of Object.values(stores.nodes)) await page.waitForSelector(`text=${name}`);
  await shoot(page, "stores-fleet");
  await page.goto(`${stores.base}/history`);
  await page.waitForSelector("text=upgrade");
  assert.deepEqual(problems, []);
  await context.close();
});

test("real stores: an open log goes on when the operator has restarted", { skip: missing }, async () => {
  const { a } = stores.nodes;
  const enough = join(await sharedDirectory(directory), "enough");
  const script = `n=0; while [ ! -e '${enough}' ]; do n=$((n + 1)); echo "number $n of many"; sleep 0.1; done`;
  const task = await createTask(stores, "steady", { nodeNames: [a] }, ["sh", "-c", script]);
  const { page, context } = await open(browser);
  const path = `executions/${task.metadata.uid}/1/${a}/lines?tail=1`;
  await until(async () => (await api(stores, path).catch(() => null))?.totalLines > 2, "the first lines");
  await page.goto(logUrl(stores, "steady", a));
  await page.waitForSelector(rowOf(3));
  await stores.stopOperator();
  await page.waitForSelector("text=/Connection lost/");
  assert.deepEqual(await accessibilityProblems(page), []);
  await shoot(page, "stores-connection-lost");
  const last = async () => (await rows(page)).at(-1)?.line ?? 0;
  const before = await last();
  await stores.startOperator();
  await page.waitForSelector("text=/Connection lost/", { state: "detached" });
  await until(async () => (await last()) > before + 20, `lines behind ${before}`);
  await writeFile(enough, "");
  assert.equal(await verdict(stores, "steady"), "Complete");
  const { totalLines } = await api(stores, path);
  await until(async () => (await last()) === totalLines, `line ${totalLines} in the page`);
  const held = await leaf(page, totalLines);
  assert.deepEqual(held.map(({ text }) => text), Array.from({ length: totalLines }, (_, index) => `number ${index + 1} of many`));
  await shoot(page, "stores-connected-again");
  await context.close();
});
