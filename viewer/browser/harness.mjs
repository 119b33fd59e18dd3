// What the tests of the pages share: a `sentinel dev` of its own, a headless Chromium, and a page that notes what goes wrong.

import { spawn } from "node:child_process";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import axe from "axe-core";
import { chromium } from "playwright-core";

const repository = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

/** The program under test. */
export const sentinel = process.env.SENTINEL_BIN ?? join(repository, "target/debug/sentinel");

/** The operator. */
export const operator = process.env.OPERATOR_BIN ?? join(repository, "target/debug/operator");

/** Where screenshots are kept. */
export const screens = join(repository, "target/viewer");

/** Longest wait for anything, ms: long enough for a loaded machine. */
export const TIMEOUT = 30_000;

/** Widths at which each page is looked at. */
export const WIDTHS = [1440, 400];

/**
 * Makes a directory below this one that commands can use: they run without root's rights.
 * @param {string} directory
 */
export async function sharedDirectory(directory) {
  const shared = join(directory, "shared");
  await mkdir(shared);
  await chmod(directory, 0o711);
  await chmod(shared, 0o777);
  return shared;
}

/**
 * Starts a dev mode with these arguments, on a port and in a directory of its own, and waits for its banner.
 * @param {string[]} args
 */
export async function startDev(args = []) {
  const directory = await mkdtemp(join(tmpdir(), "sentinel-viewer-"));
  const shared = await sharedDirectory(directory);
  const env = { ...process.env, XDG_RUNTIME_DIR: directory, TMPDIR: directory };
  for (const name of Object.keys(env)) if (name.startsWith("SENTINEL_")) delete env[name];
  const child = spawn(sentinel, ["dev", "--listen", "127.0.0.1:0", ...args], { env, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  const exited = new Promise((done) => child.once("exit", done));
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (output += text));
  const stop = async () => {
    child.kill("SIGINT");
    await Promise.race([exited, unlessDone(TIMEOUT)]);
    await rm(directory, { recursive: true, force: true });
  };
  try {
    const failed = exited.then(() => Promise.reject(new Error(`sentinel dev has ended:\n${output}`)));
    await Promise.race([until(() => output.includes("Try, in another terminal:"), "the banner"), failed]);
    const named = (label) => output.match(new RegExp(`^\\s*${label}\\s+(\\S+)`, "m"))?.[1] ?? "";
    const base = named("API").replace(/\/api\/v1$/, "");
    const token = (await readFile(named("Token"), "utf8")).trim();
    /** Runs a command line against it, to its end; returns what it printed. */
    const run = (...words) => command(["--server", base, ...words], env);
    /** The same with more environment. */
    const runWith = (more, ...words) => command(["--server", base, ...words], { ...env, ...more });
    return { base, token, link: `${base}/#token=${token}`, directory, shared, run, runWith, stop, log: () => output };
  } catch (error) {
    await stop();
    throw error;
  }
}

/**
 * Starts an operator over embedded stores, whose cluster does not answer, below a base path.
 * @param {string} basePath
 */
export async function startOperator(basePath) {
  const directory = await mkdtemp(join(tmpdir(), "sentinel-viewer-"));
  const kubeconfig = join(directory, "kubeconfig");
  const cluster = { name: "c", cluster: { server: "http://127.0.0.1:9" } };
  const context = { name: "c", context: { cluster: "c", user: "u" } };
  const config = { apiVersion: "v1", kind: "Config", "current-context": "c", clusters: [cluster], contexts: [context], users: [{ name: "u", user: {} }] };
  await writeFile(kubeconfig, JSON.stringify(config));
  const port = await freePort();
  const args = ["--storage", "embedded", "--data-dir", join(directory, "data"), "--kubeconfig", kubeconfig, "--base-path", basePath];
  args.push("--api-listen", `127.0.0.1:${port}`, "--gateway-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0");
  const child = spawn(operator, args, { stdio: "ignore" });
  const exited = new Promise((done) => child.once("exit", done));
  const stop = async () => {
    child.kill("SIGTERM");
    await Promise.race([exited, unlessDone(TIMEOUT)]);
    await rm(directory, { recursive: true, force: true });
  };
  const base = `http://127.0.0.1:${port}`;
  await until(() => fetch(`${base}/healthz`).then(() => true, () => false), "an answer of the operator");
  return { base, stop };
}

/** A port that nothing listens on. @returns {Promise<number>} */
function freePort() {
  return new Promise((done) => {
    const server = createServer();
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

function command(words, env) {
  return new Promise((done, failed) => {
    const child = spawn(sentinel, words, { env, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (output += text));
    child.once("error", failed);
    child.once("exit", (code) => done({ code, output }));
  });
}

/** A headless browser. It may reach this machine only. */
export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox", // tests run as root
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ],
  });
}

/**
 * A page that notes errors on the console, exceptions, violations of its policy, requests to other hosts, and requests that fail.
 * @param {import("playwright-core").Browser} browser
 * @param {{width?: number, height?: number, theme?: "light" | "dark"}} look
 */
export async function open(browser, { width = 1440, height = 900, theme = "light" } = {}) {
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: theme,
    reducedMotion: "reduce",
    serviceWorkers: "block",
  });
  const page = await context.newPage();
  page.setDefaultTimeout(TIMEOUT);
  /** @type {string[]} */
  const problems = [];
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") problems.push(`console: ${message.text()} ${message.location().url}`);
  });
  page.on("pageerror", (error) => problems.push(`exception: ${error.stack ?? error.message}`));
  page.on("request", (request) => {
    const { protocol, hostname } = new URL(request.url());
    if (protocol !== "http:" || hostname !== "127.0.0.1") problems.push(`request to ${request.url()}`);
  });
  await page.exposeFunction("noteViolation", (text) => problems.push(`policy: ${text}`));
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      window.noteViolation(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber} ${event.sample}`);
    });
  });
  return { page, context, problems };
}

/** Opens a path with the token. @param {import("playwright-core").Page} page @param {{base: string, token: string}} dev @param {string} path */
export const visit = (page, { base, token }, path) => page.goto(`${base}/${path}#token=${token}`);

/**
 * A screenshot, whole page, as an artefact of the tests.
 * @param {import("playwright-core").Page} page
 * @param {string} name
 */
export async function shoot(page, name) {
  await mkdir(screens, { recursive: true });
  await page.screenshot({ path: join(screens, `${name}.png`), fullPage: false });
}

/**
 * What axe-core finds wrong with a page, by the rules of WCAG 2.2 AA and best practice.
 * @param {import("playwright-core").Page} page
 * @returns {Promise<string[]>}
 */
export async function accessibilityProblems(page) {
  // By the debugger, whose scripts the policy of the page does not concern.
  await page.evaluate(axe.source);
  return page.evaluate(async () => {
    const { violations } = await window.axe.run(document, { resultTypes: ["violations"] });
    return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html).join(" ")}`);
  });
}

/** @param {number} ms */
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** The same, without keeping the process alive. @param {number} ms */
const unlessDone = (ms) => new Promise((done) => setTimeout(done, ms).unref());

/**
 * Waits until a condition holds.
 * @param {() => unknown} condition
 * @param {string} what
 * @param {number} [within] ms
 */
export async function until(condition, what, within = TIMEOUT) {
  const deadline = Date.now() + within;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ${within} ms`);
    await sleep(20);
  }
}
