// The last 15 minutes of nodes: a line in each row that is on the screen, charts and a table on the page of a node.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { WIDTHS, accessibilityProblems, launch, open, shoot, startDev, until } from "./harness.mjs";

let dev;
let browser;

before(async () => {
  [dev, browser] = await Promise.all([startDev(["--nodes", "24"]), launch()]);
  const headers = { authorization: `Bearer ${dev.token}` };
  const name = async () => (await (await fetch(`${dev.base}/api/v1/nodes`, { headers })).json()).items[0].name;
  // Charts have a line once there are two slots with a sample.
  await until(async () => {
    const samples = await (await fetch(`${dev.base}/api/v1/nodes/${await name()}/samples`, { headers })).json();
    return samples.cpu.filter((value) => value !== null).length >= 2;
  }, "two samples");
});

after(async () => {
  await Promise.all([browser?.close(), dev?.stop()]);
});

for (const theme of ["light", "dark"]) {
  for (const width of WIDTHS) {
    test(`lines in the table and charts of a node, ${theme}, ${width} wide`, async () => {
      const { page, context, problems } = await open(browser, { width, theme });
      await page.goto(dev.link);
      await page.goto(`${dev.base}/fleet`);
      const line = page.locator("tbody tr").first().locator("svg.spark");
      await line.waitFor();
      assert.match(await line.getAttribute("aria-label"), /^CPU, last 15 minutes: lowest \d+%, highest \d+%, last \d+%$/);
      assert.ok((await line.locator("path").count()) > 0);
      assert.deepEqual(await accessibilityProblems(page), []);
      await shoot(page, `fleet-table-${theme}-${width}`);

      await page.locator("tbody tr a.name").first().click();
      await page.locator(".chart canvas").nth(4).waitFor();
      const titles = await page.locator(".charts h2").evaluateAll((all) => all.map((one) => one.firstChild.textContent));
      assert.deepEqual(titles, ["CPU", "Memory", "Load", "Fullest disk", "Network"]);
      for (const label of await page.locator(".chart").evaluateAll((all) => all.map((one) => one.getAttribute("aria-label")))) assert.match(label, /last 15 minutes: lowest|nothing was heard/);
      // Something is drawn: the canvas is not of one colour.
      const drawn = await page.locator(".chart canvas").first().evaluate((canvas) => new Set(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data).size);
      assert.ok(drawn > 3, `${drawn} values in the canvas`);
      await page.getByText("Last 15 minutes as a table").click();
      await page.locator(".numbers tbody tr").nth(1).waitFor();
      assert.match(await page.locator(".numbers tbody tr").nth(1).innerText(), /^\d\d:\d\d:\d\d\s+\d+%/);
      assert.deepEqual(await accessibilityProblems(page), []);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      const wide = overflow <= 0 ? [] : await page.evaluate(() => [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > innerWidth).map((one) => one.outerHTML.slice(0, 90)));
      assert.deepEqual(wide, [], "nothing is wider than the window");
      await shoot(page, `node-${theme}-${width}`);
      assert.deepEqual(problems, []);
      await context.close();
    });
  }
}

test("the panel of the map has the lines of its node", async () => {
  const { page, context, problems } = await open(browser);
  await page.goto(dev.link);
  await page.goto(`${dev.base}/fleet?view=map`);
  await page.locator(".cells [data-index]").first().click();
  await page.locator("aside svg.wide-spark").nth(1).waitFor();
  assert.match(await page.locator("aside svg.wide-spark").first().getAttribute("aria-label"), /^CPU, last 15 minutes/);
  assert.deepEqual(await accessibilityProblems(page), []);
  await shoot(page, "fleet-map-panel");
  assert.deepEqual(problems, []);
  await context.close();
});

test("a fleet of one node is the page of that node", async () => {
  const one = await startDev();
  const { page, context, problems } = await open(browser);
  await page.goto(one.link);
  await page.click("nav >> text=Fleet");
  await page.waitForURL(/\/fleet\/.+/);
  await page.locator("h1").waitFor();
  assert.deepEqual(await accessibilityProblems(page), []);
  await shoot(page, "fleet-of-one");
  // Back is where the reader came from.
  await page.goBack();
  await page.waitForURL(/\/tasks$|\/$/);
  assert.deepEqual(problems, []);
  await context.close();
  await one.stop();
});
