// What tests of long logs share: Tasks by the API, the page of a log, its rows, and a proxy that cuts connections.

import { connect, createServer } from "node:net";
import { until } from "./harness.mjs";

/** @typedef {{base: string, token?: string, namespace?: string}} Server */
/** @typedef {{line: number, text: string}} Row */

/** @param {Server} server @param {string} path @param {RequestInit} [init] */
export async function api({ base, token }, path, init = {}) {
  const headers = { ...(token && { authorization: `Bearer ${token}` }), ...(init.body && { "content-type": "application/json" }) };
  const response = await fetch(`${base}/api/v1/${path}`, { ...init, headers });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return response.json();
}

/**
 * Makes a Task that runs a command on some nodes; returns it.
 * @param {Server} server @param {string} name @param {object} targets @param {string[]} command
 */
export function createTask(server, name, targets, command) {
  const run = { command, output: { limit: "2Gi", maxBlock: "60s" } };
  const metadata = { name, namespace: server.namespace ?? "default" };
  const spec = { targets, run, rollout: { maxConcurrent: "100%" } };
  return api(server, "tasks", { method: "POST", body: JSON.stringify({ apiVersion: "sentinelnode.dev/v1alpha1", kind: "Task", metadata, spec }) });
}

/** Waits until its Run has ended; returns the verdict. @param {Server} server @param {string} name @param {number} [within] */
export async function verdict(server, name, within) {
  let run;
  await until(async () => (run = (await api(server, `tasks/${server.namespace ?? "default"}/${name}`)).status?.run)?.verdict, `the end of ${name}`, within);
  return run.verdict;
}

/** The address of a log. @param {Server} server @param {string} name @param {string} node @param {string} [base] */
export const logUrl = (server, name, node, base = server.base) =>
  `${base}/tasks/${server.namespace ?? "default"}/${name}/runs/1/log?node=${node}${server.token ? `#token=${server.token}` : ""}`;

/** The rows of lines. @param {import("playwright-core").Page} page */
export const lineRows = (page) => page.locator(".log-view .rows li[aria-posinset]");

/** Their texts. @param {import("playwright-core").Page} page */
export const texts = (page) => lineRows(page).locator(".t").allTextContents();

/** What is in the document now. @param {import("playwright-core").Page} page @returns {Promise<Row[]>} */
export const rows = (page) =>
  page.$$eval(".log-view .rows li[aria-posinset]", (items) => items.map((item) => ({ line: Number(item.getAttribute("aria-posinset")), text: item.querySelector(".t")?.textContent ?? "" })));

/** A row with this number. @param {number} line */
export const rowOf = (line) => `.log-view .rows li[aria-posinset="${line}"]`;

/**
 * All lines that the page holds, from the first to the last, by leafing through it. Throws when a page does not continue
 * the one before: then a line is missing or is there twice.
 * @param {import("playwright-core").Page} page
 * @param {number} last number of the last line
 */
export async function leaf(page, last) {
  await page.focus(".log-view");
  await page.keyboard.press("Home");
  await page.waitForSelector(rowOf(1));
  /** @type {Row[]} */
  const all = [];
  for (;;) {
    const shown = await rows(page);
    shown.forEach(({ line }, index) => {
      if (line !== shown[0].line + index) throw new Error(`line ${line} is below line ${shown[index - 1].line}`);
    });
    if (shown[0].line > all.length + 1) throw new Error(`line ${shown[0].line} follows line ${all.length}`);
    all.push(...shown.slice(all.length + 1 - shown[0].line));
    if (all.length >= last) return all;
    const top = shown[0].line;
    await page.keyboard.press("PageDown");
    await until(async () => (await rows(page))[0]?.line > top || (await rows(page)).at(-1)?.line === last, `the page below line ${top}`);
  }
}

/**
 * A TCP proxy to a server on this machine. `cut` breaks each connection that carries events of lines in the middle of the
 * next piece of its answer, and returns when one was broken.
 * @param {string} base
 */
export async function startProxy(base) {
  const { hostname, port } = new URL(base);
  let wanted = 0;
  let cuts = 0;
  const sockets = new Set();
  const server = createServer((client) => {
    const upstream = connect(Number(port), hostname);
    let carriesLines = false;
    const end = () => (client.destroy(), upstream.destroy());
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", end);
      socket.on("close", () => (sockets.delete(socket), end()));
    }
    client.on("data", (data) => {
      const line = data.toString("latin1").match(/^GET (\S+) HTTP/);
      if (line) carriesLines = line[1].includes("/lines/events");
      upstream.write(data);
    });
    upstream.on("data", (data) => {
      if (!carriesLines || wanted === 0) return client.write(data);
      wanted -= 1;
      cuts += 1;
      client.write(data.subarray(0, Math.floor(data.length / 2)), end);
    });
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", () => done(null)));
  const { port: own } = /** @type {import("node:net").AddressInfo} */ (server.address());
  const cut = async () => {
    const before = cuts;
    wanted = 1;
    await until(() => cuts > before, "a cut connection");
  };
  const stop = () => {
    for (const socket of sockets) socket.destroy();
    return new Promise((done) => server.close(done));
  };
  return { base: `http://127.0.0.1:${own}`, cut, cuts: () => cuts, stop };
}
