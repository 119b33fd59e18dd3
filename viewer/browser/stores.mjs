// An operator on a real API server, Redis and a MongoDB-compatible server, with real agents.

import { spawn } from "node:child_process";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const repository = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const testbed = process.env.TESTBED_BIN ?? join(repository, "target/debug/testbed");

/** Why it cannot be started here; `false` when it can. Under CI it has to. @type {string | false} */
export const missing = process.env.SENTINEL_PARTS || process.env.CI ? false : "SENTINEL_PARTS is not set: run tests/parts/with-parts viewer/browse";

/**
 * Starts it with an agent for each of these nodes.
 * @param {string[]} names
 */
export async function startStores(names) {
  const child = spawn(testbed, names, { stdio: ["pipe", "pipe", "pipe"] });
  let wrong = "";
  child.stderr.on("data", (text) => (wrong += text));
  const exited = new Promise((done) => child.once("exit", done));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  /** Its next answer; what a failed start prints is no JSON. */
  const answer = async () => {
    const { done, value } = await lines.next();
    if (!done && value.startsWith("{")) return JSON.parse(value);
    throw new Error(`testbed has ended: ${done ? "" : value}\n${wrong}`);
  };
  const { api, namespace, nodes } = await answer();
  /** @param {"stop" | "start"} word */
  const command = async (word) => {
    child.stdin.write(`${word}\n`);
    await answer();
  };
  const stop = async () => {
    child.stdin.end();
    await exited;
  };
  return { base: api, namespace, nodes, stopOperator: () => command("stop"), startOperator: () => command("start"), stop };
}
