// The API of the operator: requests with the token of this tab, and streams that come back by themselves.

import { signal } from "./vendor/signals.js";
import { EventParser } from "./sse.js";

/** @typedef {import("./types.js").ErrorBody} ErrorBody */

const KEY = "token";

/** A proxy between this page and the operator, such as the API server's, takes `Authorization` for itself. */
export const AUTHORIZATION = "sentinel-authorization";

/** Pause before an operator that was away or busy is asked again, ms. */
const ASK_AGAIN_MS = 1000;

/** The token of a link, which this tab forgets when it is closed; or one that was typed in, which it forgets with the page. */
export const token = signal(takeToken());

/** Whether the API has refused the token. */
export const refused = signal(false);

/** How far the clock of the operator is ahead of ours, ms: times are compared with its clock. */
export const clockAhead = signal(0);

/** From the fragment, which is never sent to a server; the address bar must not keep it. */
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    store(given);
    history.replaceState(history.state, "", location.pathname + location.search);
    return given;
  }
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** @param {string} value */
function store(value) {
  try {
    sessionStorage.setItem(KEY, value);
  } catch {
    // A tab without storage has it as long as it is not reloaded.
  }
}

/** The only namespace that the reader may list; empty when it is not only one. */
export const namespace = signal("");

/** Lists that may be of one namespace. */
const LISTS = ["tasks", "events", "runs", "executions"];

/** The same path, within that namespace. @param {string} path */
export function within(path) {
  const [place, query = ""] = path.split("?");
  if (!namespace.value || !LISTS.includes(place) || new URLSearchParams(query).has("namespace")) return path;
  return `${place}?${query}${query && "&"}namespace=${encodeURIComponent(namespace.value)}`;
}

/** @param {string} value @param {string} only the namespace, if the token may list only one */
export function signIn(value, only = "") {
  namespace.value = only;
  token.value = value;
  refused.value = false;
}

/** What the operator said, or that it said nothing. */
export class ApiError extends Error {
  /** @param {number} status 0 without an answer @param {ErrorBody} body */
  constructor(status, body) {
    super(body.message);
    this.status = status;
    this.body = body;
  }
}

/** Whether the operator is away or busy, so that it may answer later. @param {unknown} error */
export const isPassing = (error) => error instanceof ApiError && (error.status === 0 || error.status >= 500);

/**
 * Asks until there is an answer. While the operator is away or busy, it is asked again after a pause.
 * @param {string} path @param {AbortSignal} signal @param {(error: unknown) => boolean} isWanted whether the answer still is
 */
export async function askUntil(path, signal, isWanted) {
  for (;;) {
    try {
      return await ask(path, { signal });
    } catch (error) {
      if (!isPassing(error) || !isWanted(error)) throw error;
      await new Promise((done) => setTimeout(done, ASK_AGAIN_MS));
      if (signal.aborted || !isWanted(error)) throw error;
    }
  }
}

/** @param {Record<string, string | number | null | undefined>} query */
export function search(query) {
  const kept = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return kept.length > 0 ? `?${new URLSearchParams(kept.map(([key, value]) => [key, String(value)]))}` : "";
}

/** @param {string} path @param {RequestInit} init */
async function send(path, init) {
  const headers = new Headers(init.headers);
  if (token.value) headers.set(AUTHORIZATION, `Bearer ${token.value}`);
  if (init.method && init.method !== "GET") headers.set("sentinel-request", "1");
  let response;
  try {
    response = await fetch(`api/v1/${within(path)}`, { ...init, headers, cache: "no-store" });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ApiError(0, { reason: "Unreachable", message: "The operator does not answer." });
  }
  const date = Date.parse(response.headers.get("date") ?? "");
  // The header has whole seconds; a difference below two is none.
  if (!Number.isNaN(date)) {
    const ahead = date + 500 - Date.now();
    if (Math.abs(ahead - clockAhead.peek()) > 2000) clockAhead.value = Math.abs(ahead) < 2000 ? 0 : ahead;
  }
  if (response.ok) return response;
  if (response.status === 401) refused.value = true;
  /** @type {ErrorBody} */
  const fallback = { reason: `HTTP ${response.status}`, message: response.statusText || "The operator refused." };
  throw new ApiError(response.status, { ...fallback, ...(await response.json().catch(() => ({}))) });
}

/**
 * @param {string} path below /api/v1/
 * @param {{method?: string, body?: unknown, signal?: AbortSignal}} [options]
 * @returns {Promise<any>}
 */
export async function ask(path, { method = "GET", body, signal: abort } = {}) {
  const headers = body === undefined ? undefined : { "content-type": "application/json" };
  const response = await send(path, { method, body: body === undefined ? undefined : JSON.stringify(body), headers, signal: abort });
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

/**
 * All pages of a list, up to a number of them.
 *
 * @template T
 * @param {string} path @param {Record<string, string | number | undefined>} query
 * @param {{signal?: AbortSignal, pages?: number}} [options]
 * @returns {Promise<{items: T[], partial: string | null, cut: boolean}>}
 */
export async function askAll(path, query, { signal: abort, pages = 40 } = {}) {
  /** @type {T[]} */
  const items = [];
  let partial = null;
  let page;
  for (let n = 0; n < pages; n += 1) {
    const answer = await ask(path + search({ limit: 500, ...query, page }), { signal: abort });
    items.push(...answer.items);
    partial = answer.partial?.message ?? partial;
    page = answer.next;
    if (!page) return { items, partial, cut: false };
  }
  return { items, partial, cut: true };
}

/** An answer of one JSON object a line, each as it comes. @param {string} path @param {AbortSignal} abort @param {(value: any) => void} onValue */
export async function askLines(path, abort, onValue) {
  const response = await send(path, { signal: abort });
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const text = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const lines = (rest + text.decode(value, { stream: !done })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line) onValue(JSON.parse(line));
    if (done) return;
  }
}

/** A download with the token, which a link cannot carry. @param {string} path @param {string} name */
export async function save(path, name) {
  const response = await send(path, {});
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** @typedef {{live: boolean, since: number, retryAt: number | null, error: ApiError | null}} Connection */

/** Longest silence: the operator sends a comment every ten seconds. */
const SILENCE_MS = 25_000;
const LONGEST_WAIT_MS = 15_000;

/** Events of the operator, for as long as it is wanted. A lost connection is made again from the last id. */
export class EventStream {
  #path;
  #onEvent;
  #abort = new AbortController();
  #closed = false;
  #wait = 500;
  /** @type {(() => void) | null} */
  #hurry = null;
  /** Where to go on. @type {string | null} */
  lastId = null;
  /** @type {import("./vendor/signals.js").Signal<Connection>} */
  connection = signal({ live: false, since: Date.now(), retryAt: null, error: null });

  /** @param {() => string} path @param {(event: import("./sse.js").ServerEvent) => void} onEvent */
  constructor(path, onEvent) {
    this.#path = path;
    this.#onEvent = onEvent;
    void this.#run();
  }

  close() {
    this.#closed = true;
    this.#abort.abort();
    this.#hurry?.();
  }

  /** Without waiting. */
  retry() {
    this.#wait = 500;
    this.#hurry?.();
  }

  async #run() {
    while (!this.#closed) {
      const error = await this.#once();
      if (this.#closed) return;
      const before = this.connection.peek();
      const hopeless = error !== null && error.status >= 400 && error.status < 500 && error.status !== 408;
      const wait = hopeless ? null : this.#wait * (0.75 + Math.random() / 2);
      this.connection.value = { live: false, since: before.live ? Date.now() : before.since, retryAt: wait && Date.now() + wait, error };
      if (wait === null) return;
      this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
      await new Promise((done) => {
        const timer = setTimeout(done, wait);
        this.#hurry = () => (clearTimeout(timer), done(null));
      });
      this.#hurry = null;
    }
  }

  /** One connection, to its end. @returns {Promise<ApiError | null>} */
  async #once() {
    this.#abort = new AbortController();
    let silence = 0;
    const listen = () => {
      clearTimeout(silence);
      silence = setTimeout(() => this.#abort.abort(), SILENCE_MS);
    };
    try {
      listen();
      const headers = this.lastId === null ? undefined : { "last-event-id": this.lastId };
      const response = await send(this.#path(), { signal: this.#abort.signal, headers });
      this.connection.value = { live: true, since: Date.now(), retryAt: null, error: null };
      const events = new EventParser();
      const text = new TextDecoder();
      const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return null;
        listen();
        this.#wait = 500;
        for (const event of events.push(text.decode(value, { stream: true }))) {
          if (event.id !== null) this.lastId = event.id;
          this.#onEvent(event);
          if (this.#closed) return null;
        }
      }
    } catch (error) {
      return error instanceof ApiError ? error : null;
    } finally {
      clearTimeout(silence);
    }
  }
}
