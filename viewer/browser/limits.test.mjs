// What people see of limits: the rule by which a node refused a command, a Run that waits for an approval, and one beyond its ceiling.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { accessibilityProblems, launch, open, shoot, startDev, visit, WIDTHS } from "./harness.mjs";

const POLICY = `apiVersion: sentinelnode.dev/v1alpha1
kind: NodePolicy
rules:
- id: echo-only
  effect: Allow
  who: Anyone
  what: [{programs: [/bin/echo, /usr/bin/echo], args: Any}]
  users: Any
  environments: [Host]
  sandboxes: [Privileged, Baseline, Restricted]
`;
const CEILINGS = `apiVersion: sentinelnode.dev/v1alpha1
kind: Ceilings
ceilings:
- {name: small, namespaces: ['*'], maxTargets: {count: 3}, approval: {above: {count: 1}, validFor: 1h}}
`;

/** @type {Awaited<ReturnType<typeof startDev>>} */
let dev;
/** @type {import("playwright-core").Browser} */
let browser;
let directory = "";

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "sentinel-limits-"));
  const [policy, ceilings] = [join(directory, "policy.yaml"), join(directory, "ceilings.yaml")];
  await Promise.all([writeFile(policy, POLICY), writeFile(ceilings, CEILINGS)]);
  dev = await startDev(["--nodes", "4", "--policy", policy, "--ceilings", ceilings]);
  const refused = await dev.run("run", "--name", "refused", "--node", "sim-1", "--", "/bin/sleep", "1");
  assert.equal(refused.code, 125, refused.output);
  await dev.run("run", "--detach", "--name", "waits", "--node", "sim-1", "--node", "sim-2", "--", "/bin/echo", "hello");
  await dev.run("run", "--detach", "--name", "beyond", "--all", "--", "/bin/echo", "hello");
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await dev?.stop();
  await rm(directory, { recursive: true, force: true });
});

test("a refused command is shown with the rule of the node's policy", async () => {
  const { page, context, problems } = await open(browser);
  await visit(page, dev, "tasks/default/refused?tab=nodes");
  await page.waitForSelector("text=/rule no-rule/");
  await visit(page, dev, "tasks/default/refused/runs/1/nodes/sim-1");
  await page.waitForSelector("text=/the node's policy forbids it .rule no-rule./");
  assert.deepEqual(await accessibilityProblems(page), []);
  await shoot(page, "refused-by-policy");
  assert.deepEqual(problems, []);
  await context.close();
});

for (const theme of ["light", "dark"]) {
  for (const width of WIDTHS) {
    test(`what a Run waits for is asked with all that is approved, ${theme}, ${width}`, async () => {
      const { page, context, problems } = await open(browser, { theme, width });
      await visit(page, dev, "tasks/default/beyond");
      await page.waitForSelector("text=/maxTargets.count allows 3/");
      await shoot(page, `beyond-ceiling-${theme}-${width}`);
      await visit(page, dev, "tasks/default/waits");
      await page.waitForSelector("text=/allows only with an approval/");
      await page.click("button:has-text('Approve Run 1…')");
      const dialog = page.getByRole("dialog");
      await dialog.getByText("sim-1, sim-2").waitFor();
      await dialog.getByText("/bin/echo hello").waitFor();
      await dialog.getByText("small").waitFor();
      assert.deepEqual(await accessibilityProblems(page), []);
      await shoot(page, `approve-${theme}-${width}`);
      await dialog.getByText("Not now").click();
      await dialog.waitFor({ state: "detached" });
      assert.deepEqual(problems, []);
      await context.close();
    });
  }
}

test("who asked cannot approve it, and the page shows why", async () => {
  const { page, context } = await open(browser);
  await visit(page, dev, "tasks/default/waits");
  await page.keyboard.press("Shift+A");
  await page.getByRole("dialog").getByText("Approve Run 1", { exact: true }).click();
  await page.getByRole("alert").filter({ hasText: /another person has to approve it/ }).waitFor();
  await shoot(page, "approve-own");
  await context.close();
});
