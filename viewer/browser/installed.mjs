// The page of an operator in a cluster, through the API server's service proxy, with the token of a reader. Run by the tests on
// real nodes, which set PAGE_BASE, PAGE_TOKEN, and PAGE_TASK (NAMESPACE/NAME) with a line that its Run wrote in PAGE_LINE.

import assert from "node:assert/strict";
import { test } from "node:test";
import { launch, open, shoot, until } from "./harness.mjs";

const { PAGE_BASE: base, PAGE_TOKEN: token, PAGE_TASK: task, PAGE_LINE: line } = process.env;

test("a reader signs in through the service proxy and reads a log", async () => {
  const browser = await launch();
  try {
    const { page, problems } = await open(browser);
    await page.goto(`${base}/tasks/${task}`);
    await page.getByLabel("Token").fill("wrong");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("This token is not valid here.").waitFor();
    // What was wrong on purpose is on the console of a browser.
    await until(() => problems.length > 0, "the refusal is on the console");
    problems.length = 0;
    await page.getByLabel("Token").fill(token);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("Name one.").waitFor();
    problems.length = 0;
    await page.getByLabel("Namespace").fill(task.split("/")[0]);
    await shoot(page, "installed-sign-in");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("heading", { name: task.split("/")[1] }).waitFor();
    await page.getByText(line).first().waitFor();
    await shoot(page, "installed-task");
    assert.deepEqual(problems, []);
    // Nodes are not of a namespace, so its roles do not have them.
    await page.getByRole("link", { name: "Fleet" }).click();
    await page.getByRole("heading", { name: "The nodes could not be read" }).waitFor();
    await page.getByText(/cannot list resource "nodes"/).waitFor();
    await shoot(page, "installed-fleet-refused");
    assert.equal(await page.evaluate(() => JSON.stringify(sessionStorage) + JSON.stringify(localStorage) + document.cookie).then((kept) => kept.includes(token)), false);
  } finally {
    await browser.close();
  }
});
