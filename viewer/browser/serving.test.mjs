// The page as it is served: it opens signed in, obeys its policy, asks no other host, and is looked at in both themes and widths.

import assert from "node:assert/strict";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { WIDTHS, accessibilityProblems, launch, open, shoot, startDev, startOperator } from "./harness.mjs";

const examples = fileURLToPath(new URL("../../examples", import.meta.url));

/** @type {Awaited<ReturnType<typeof startDev>>} */
let dev;
/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  dev = await startDev([join(examples, "hello.yaml"), "--nodes", "3"]);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await dev?.stop();
});

/** Waits until the page has drawn something of its own, and nothing is loading. */
async function settled(page) {
  await page.waitForFunction(() => document.querySelector("#app")?.childElementCount);
  await page.waitForSelector("main");
}

test("the link of dev mode signs in, and the token does not stay in the address", async () => {
  const { page, context, problems } = await open(browser);
  const sent = [];
  page.on("request", (request) => sent.push(request.url()));
  await page.goto(dev.link);
  await settled(page);
  assert.equal(new URL(page.url()).hash, "");
  assert.equal(await page.evaluate(() => Object.values(sessionStorage).join()), dev.token);
  assert.ok(!page.url().includes("/login"), page.url());
  // Neither in an address nor in what is kept when the browser ends.
  assert.deepEqual(sent.filter((url) => url.includes(dev.token)), []);
  assert.equal(await page.evaluate(() => JSON.stringify(localStorage) + document.cookie).then((kept) => kept.includes(dev.token)), false);
  assert.deepEqual(problems, []);
  await context.close();
});

test("sentinel ui opens the page, signed in, by a file that only its user can read", async () => {
  const opener = join(dev.directory, "xdg-open");
  await writeFile(opener, `#!/bin/sh\nprintf %s "$1" >"$0.argument"\n`, { mode: 0o755 });
  const { code, output } = await dev.runWith({ DISPLAY: ":9", PATH: `${dev.directory}:${process.env.PATH}` }, "ui");
  assert.equal(code, 0, output);
  const file = await readFile(`${opener}.argument`, "utf8");
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  const { page, context, problems } = await open(browser);
  await page.goto(`file://${file}`);
  await page.waitForURL(`${dev.base}/**`);
  await settled(page);
  assert.equal(await page.evaluate(() => Object.values(sessionStorage).join()), dev.token);
  assert.ok(!page.url().includes("login") && !page.url().includes("#"), page.url());
  assert.deepEqual(problems.filter((problem) => !problem.endsWith(file)), []);
  await context.close();
});

test("below a base path, every request of the page is below it", async () => {
  const behind = await startOperator("/ops/sentinel");
  try {
    const { page, context } = await open(browser);
    const paths = [];
    page.on("request", (request) => paths.push(new URL(request.url()).pathname));
    for (const view of ["", "fleet", "history", "tasks/new"]) {
      await page.goto(`${behind.base}/ops/sentinel/${view}`);
      await settled(page);
      assert.ok(page.url().startsWith(`${behind.base}/ops/sentinel/`), page.url());
    }
    await page.click("text=Fleet");
    await page.waitForURL(`${behind.base}/ops/sentinel/fleet`);
    assert.ok(paths.some((path) => path.startsWith("/ops/sentinel/api/v1/")), paths.join());
    assert.deepEqual(paths.filter((path) => !path.startsWith("/ops/sentinel/")), []);
    await context.close();
  } finally {
    await behind.stop();
  }
});

test("the policy blocks inline scripts, HTML from strings and other hosts", async () => {
  const { page, context } = await open(browser);
  await page.goto(dev.link);
  await settled(page);
  const blocked = await page.evaluate(async () => {
    const attempt = (work) => {
      try {
        work();
        return "done";
      } catch (error) {
        return error.name;
      }
    };
    const script = document.createElement("script");
    const inline = attempt(() => (script.text = "window.injected = true"));
    document.head.append(script);
    return {
      inline,
      html: attempt(() => (document.createElement("div").innerHTML = "<img src=x onerror=alert(1)>")),
      // In a task of its own: the one that the debugger began may evaluate strings.
      evaluated: await new Promise((done) => setTimeout(() => done(attempt(() => new Function("return 1")())))),
      injected: "injected" in window,
      fetched: await fetch("http://127.0.0.1:9/").then(() => "done", (error) => error.name),
    };
  });
  assert.deepEqual(blocked, { inline: "TypeError", html: "TypeError", evaluated: "EvalError", injected: false, fetched: "TypeError" });
  await context.close();
});

test("without a token the page asks for one", async () => {
  const { page, context, problems } = await open(browser);
  await page.goto(`${dev.base}/fleet?view=map`);
  await page.waitForURL(/\/login/);
  await settled(page);
  await shoot(page, "login-light-1440");
  // The answer 401 is what leads here.
  assert.deepEqual(problems.filter((problem) => !problem.includes("status of 401")), []);
  await context.close();
});

test("a page of another site cannot hold this one in a frame", async () => {
  const { page, context } = await open(browser);
  await page.goto(dev.base);
  await settled(page);
  const framed = await page.evaluate(async (address) => {
    const frame = document.createElement("iframe");
    frame.src = address;
    document.body.append(frame);
    await new Promise((done) => frame.addEventListener("load", done));
    try {
      return frame.contentDocument?.querySelector("#app") !== null && frame.contentDocument !== null;
    } catch {
      return false;
    }
  }, dev.base);
  assert.equal(framed, false);
  await context.close();
});

/** The address of every view, with what it is called in screenshots. */
const VIEWS = {
  tasks: "tasks",
  task: "tasks/default/hello",
  "task-nodes": "tasks/default/hello?tab=nodes",
  "task-timeline": "tasks/default/hello?tab=timeline",
  execution: "tasks/default/hello/runs/1/nodes/sim-1",
  log: "tasks/default/hello/runs/1/log",
  form: "tasks/new",
  fleet: "fleet",
  map: "fleet?view=map",
  node: "fleet/sim-1",
  history: "history",
  missing: "task",
};

/**
 * Whether the browser notes an answer 404 to what this operator does not have: an address that is not a view, or a route of a
 * newer operator, which the page tries.
 * @param {string} problem
 * @param {RegExp[]} routes those that it has
 */
function isOfMissing(problem, routes) {
  const address = problem.match(/status of 404 .*? (http:\S+)$/)?.[1];
  if (!address) return false;
  const { pathname } = new URL(address);
  return pathname === "/task" || (pathname.startsWith("/api/") && !routes.some((route) => route.test(pathname)));
}

/** The routes of this operator. */
async function documented() {
  const response = await fetch(`${dev.base}/api/v1/openapi.json`, { headers: { authorization: `Bearer ${dev.token}` } });
  const { paths } = await response.json();
  return Object.keys(paths).map((path) => new RegExp(`^${path.replaceAll(".", "\\.").replaceAll(/\{[^}]*\}/g, "[^/]+")}$`));
}

for (const theme of /** @type {const} */ (["light", "dark"])) {
  for (const width of WIDTHS) {
    test(`every view opens without a problem: ${theme}, ${width} px`, async () => {
      await dev.run("wait", "hello");
      const routes = await documented();
      assert.ok(routes.length > 10);
      const { page, context, problems } = await open(browser, { width, theme });
      await page.goto(dev.link);
      await settled(page);
      for (const [name, address] of Object.entries(VIEWS)) {
        await page.goto(`${dev.base}/${address}`);
        await settled(page);
        await page.waitForSelector("main:not([aria-busy])");
        await shoot(page, `${name}-${theme}-${width}`);
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.ok(overflow <= 0, `${name} is ${overflow} px too wide`);
        assert.deepEqual(await accessibilityProblems(page), [], name);
      }
      assert.deepEqual(problems.filter((problem) => !isOfMissing(problem, routes)), []);
      await context.close();
    });
  }
}
