// What ran: what it used, and filters whose state is in the address.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { WIDTHS, accessibilityProblems, launch, open, shoot, startDev, until } from "./harness.mjs";

let dev;
let browser;

before(async () => {
  [dev, browser] = await Promise.all([startDev(["--nodes", "4"]), launch()]);
  assert.equal((await dev.run("run", "--name", "greet", "--all", "--", "echo", "hello")).code, 0);
  assert.equal((await dev.run("rerun", "greet")).code, 0);
  const headers = { authorization: `Bearer ${dev.token}` };
  await until(async () => (await (await fetch(`${dev.base}/api/v1/runs`, { headers })).json()).items[0].verdict && (await (await fetch(`${dev.base}/api/v1/executions`, { headers })).json()).items.length === 10, "two Runs");
});

after(async () => {
  await Promise.all([browser?.close(), dev?.stop()]);
});

for (const theme of ["light", "dark"]) {
  for (const width of WIDTHS) {
    test(`executions have what they used, ${theme}, ${width} wide`, async () => {
      const { page, context, problems } = await open(browser, { width, theme });
      await page.goto(dev.link);
      await page.goto(`${dev.base}/history`);
      const rows = page.locator("tbody tr:not(.day)");
      await rows.first().waitFor();
      const heads = await page.locator("thead th").allInnerTexts();
      const cells = await rows.first().locator("td").allInnerTexts();
      const of = (name) => cells[heads.indexOf(name)];
      assert.match(of("CPU"), /^\d+(\.\d+)? m?s$/);
      assert.match(of("Memory, peak"), /^\d+(\.\d+)? [KM]iB$/);
      assert.equal(of("Output"), "6 B");
      assert.equal(of("Trigger"), "Rerun");
      assert.deepEqual(await accessibilityProblems(page), []);
      await shoot(page, `history-used-${theme}-${width}`);
      assert.deepEqual(problems, []);
      await context.close();
    });
  }
}

test("filters by trigger and time are in the address", async () => {
  const { page, context, problems } = await open(browser);
  await page.goto(dev.link);
  await page.goto(`${dev.base}/history`);
  const rows = page.locator("tbody tr:not(.day)");
  await rows.nth(9).waitFor();
  await page.getByLabel("Trigger").selectOption("RerunToken");
  await page.waitForURL("**/history?trigger=RerunToken");
  // The page is empty between the rows of one question and those of the next.
  await until(async () => (await rows.count()) === 5, "five rows");
  assert.deepEqual(new Set(await rows.locator("td:last-child").allInnerTexts()), new Set(["Rerun"]));
  await page.getByLabel("Run began").selectOption("24h");
  await page.waitForURL("**since=24h**");
  await rows.nth(4).waitFor();
  await page.getByLabel("Run began").selectOption("range");
  await page.waitForURL("**since=2*T*");
  await page.getByLabel("From", { exact: true }).waitFor();
  await page.getByLabel("to", { exact: true }).fill("2020-01-01T00:00");
  await page.getByLabel("to", { exact: true }).blur();
  await page.waitForURL("**until=20*");
  await page.getByText("Nothing matches").waitFor();
  assert.deepEqual(await accessibilityProblems(page), []);
  await shoot(page, "history-range");
  await page.getByText("Clear filters").click();
  await rows.nth(9).waitFor();
  await page.goto(`${dev.base}/history?rows=runs&trigger=SpecChange&since=1h`);
  await rows.first().waitFor();
  assert.equal(await rows.count(), 1);
  assert.deepEqual(problems, []);
  await context.close();
});
