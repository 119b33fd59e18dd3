// A newcomer finds the failing line of a failing node: from the first page in two clicks, and in the log in a third.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { accessibilityProblems, launch, open, shoot, startDev } from "./harness.mjs";

// One stream, since two have no order, and the page shows the end.
const script = `case $SENTINEL_NODE in
sim-7) exec 2>&1; for n in $(seq 1 200); do echo "unpacking file $n"; done; echo "cp: error writing '/var/lib/app': No space left on device" >&2; exit 3;;
sim-4) echo "version 3.0.1";;
*) echo "version 3.0.2";;
esac`;

/** @type {Awaited<ReturnType<typeof startDev>>} */
let dev;
/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  dev = await startDev(["--nodes", "24"]);
  const { code, output } = await dev.run("run", "--name", "upgrade", "--all", "--", "sh", "-c", script);
  assert.equal(code, 3, output);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await dev?.stop();
});

const failing = "No space left on device";

for (const theme of ["light", "dark"]) {
  test(`from the first page to the failing line, ${theme}`, async () => {
    const { page, context, problems } = await open(browser, { theme });
    await page.goto(dev.link);
    await page.click("text=upgrade");
    await page.waitForSelector(`text=${failing}`);
    await page.waitForSelector("text=differs");
    assert.deepEqual(await accessibilityProblems(page), []);
    await shoot(page, `story-outputs-${theme}`);
    await page.click("[aria-label='log of sim-7']");
    await page.waitForSelector(`text=${failing}`);
    await page.fill("#filter", "file 1[0-9]{2}$");
    await page.keyboard.press("Enter");
    await page.waitForSelector("text=/^(\\d+ of )?100$/");
    assert.deepEqual(await accessibilityProblems(page), []);
    await shoot(page, `story-log-${theme}`);
    assert.deepEqual(problems, []);
    await context.close();
  });
}
