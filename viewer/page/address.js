// Addresses of the page: every view is one. Pure; paths are relative to the base path of the ingress.

/** @typedef {"tasks" | "form" | "task" | "execution" | "log" | "fleet" | "node" | "history" | "login" | "missing"} Page */
/** @typedef {{page: Page, ns: string, name: string, run: number | null, node: string, query: Record<string, string>}} Address */

/** Values that are left out of an address. @type {Record<string, string>} */
export const DEFAULTS = {
  phase: "all", sort: "", tab: "outputs", equal: "stdout", view: "table", colour: "state", rows: "executions", stream: "both", time: "clock", wrap: "", show: "all", q: "", state: "", group: "",
};

/** @param {string} text */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * @param {string} path without the base path
 * @param {string} search
 * @returns {Address}
 */
export function parse(path, search = "") {
  const parts = path.split("/").filter(Boolean).map(decode);
  const query = Object.fromEntries(new URLSearchParams(search));
  const address = { page: /** @type {Page} */ ("missing"), ns: "", name: "", run: /** @type {number | null} */ (null), node: "", query };
  const [place, ns, name, runs, run, more, node] = parts;
  if (parts.length === 0 || (place === "tasks" && parts.length === 1)) return { ...address, page: "tasks" };
  if (place === "tasks" && ns === "new" && parts.length === 2) return { ...address, page: "form" };
  if (place === "tasks" && parts.length === 3) return { ...address, page: "task", ns, name };
  if (place === "tasks" && runs === "runs" && /^[1-9]\d{0,9}$/.test(run ?? "")) {
    const found = { ...address, ns, name, run: Number(run) };
    if (parts.length === 5) return { ...found, page: "task" };
    if (more === "log" && parts.length === 6) return { ...found, page: "log" };
    if (more === "nodes" && node && parts.length === 7) return { ...found, page: "execution", node };
  }
  if (place === "fleet" && parts.length === 1) return { ...address, page: "fleet" };
  if (place === "fleet" && parts.length === 2) return { ...address, page: "node", node: ns };
  if (parts.length === 1 && (place === "history" || place === "login")) return { ...address, page: place };
  return address;
}

/**
 * A query with changes, without what is empty or the default.
 *
 * @param {Record<string, string>} query
 * @param {Record<string, string | number | null | undefined>} changes
 */
export function queryText(query, changes = {}) {
  /** @type {[string, string][]} */
  const kept = [];
  for (const [key, value] of Object.entries({ ...query, ...changes })) {
    if (value === null || value === undefined || String(value) === (DEFAULTS[key] ?? "")) continue;
    kept.push([key, String(value)]);
  }
  // Readable: `node=web-[016-022]` and `at=web-017.1.11842` stay as people write them.
  const text = kept.map(([key, value]) => `${key}=${encodeURIComponent(value).replace(/%5B/g, "[").replace(/%5D/g, "]").replace(/%2C/g, ",").replace(/%2F/g, "/").replace(/%3A/g, ":").replace(/%3D/g, "=")}`).join("&");
  return text ? `?${text}` : "";
}

/** @typedef {Record<string, string | number | null | undefined>} Query */

/** @param {string} ns @param {string} name @param {Query} [query] */
export const taskPath = (ns, name, query) => `tasks/${encodeURIComponent(ns)}/${encodeURIComponent(name)}${queryText({}, query)}`;

/** @param {string} ns @param {string} name @param {number} run @param {Query} [query] */
export const runPath = (ns, name, run, query) => `${taskPath(ns, name)}/runs/${run}${queryText({}, query)}`;

/** @param {string} ns @param {string} name @param {number} run @param {string} node @param {Query} [query] */
export const executionPath = (ns, name, run, node, query) => `${runPath(ns, name, run)}/nodes/${encodeURIComponent(node)}${queryText({}, query)}`;

/** @param {string} ns @param {string} name @param {number} run @param {Query} [query] */
export const logPath = (ns, name, run, query) => `${runPath(ns, name, run)}/log${queryText({}, query)}`;

/** @param {string} node */
export const nodePath = (node) => `fleet/${encodeURIComponent(node)}`;

/** A line for ever: where its bytes are. @typedef {{node: string, attempt: number, position: number}} LinePlace */

/** @param {LinePlace} place */
export const lineText = ({ node, attempt, position }) => `${node}.${attempt}.${position}`;

/** Names of nodes have dots, the two numbers have none. @param {string | undefined} text @returns {LinePlace | null} */
export function parseLine(text) {
  const found = /^(.+)\.(\d{1,9})\.(\d{1,16})$/.exec(text ?? "");
  return found ? { node: found[1], attempt: Number(found[2]), position: Number(found[3]) } : null;
}

/** A path of this page only: what `to=` of the login may hold. @param {string | undefined} text */
export function ownPath(text) {
  return text && /^(tasks|fleet|history)(\/|\?|$)/.test(text) && !text.includes("//") && !text.includes("\\") ? text : "tasks";
}
