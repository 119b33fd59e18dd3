// What a view asks of the API, again and again while it is shown. Old data of the same key stays until the new is there.

import { useEffect, useRef, useState } from "./vendor/hooks.js";
import { ask, askAll, clockAhead, refused, search } from "./api.js";
import { hasEnded, look } from "./states.js";
import { byName } from "./names.js";
import { findTask, synced } from "./live.js";

/**
 * @template T
 * @typedef {{data: T | null, error: unknown, again: () => void}} Loaded
 */

/** Shortest time between two requests for the same. */
const BETWEEN_MS = 700;

/**
 * @template T
 * @param {string | null} key what is asked; `null` asks nothing
 * @param {(abort: AbortSignal) => Promise<T>} load
 * @param {{every?: number, version?: unknown}} [when] how often, ms, and a value whose change asks again
 * @returns {Loaded<T>}
 */
export function useLoad(key, load, { every = 0, version } = {}) {
  const [state, setState] = useState(/** @type {{key: string | null, data: T | null, error: unknown}} */ ({ key: null, data: null, error: null }));
  const latest = useRef({ load, every });
  latest.current = { load, every };
  const poke = useRef(() => {});
  const allowed = !refused.value;
  useEffect(() => {
    if (key === null || !allowed) return undefined;
    const abort = new AbortController();
    let busy = false;
    let dirty = false;
    let timer = 0;
    /** @param {number} wait */
    const schedule = (wait) => {
      clearTimeout(timer);
      timer = setTimeout(run, wait);
    };
    async function run() {
      const { every: interval, load: ask } = latest.current;
      if (document.hidden && interval > 0 && !dirty) return schedule(interval);
      busy = true;
      dirty = false;
      const began = Date.now();
      try {
        const data = await ask(abort.signal);
        if (!abort.signal.aborted) setState({ key, data, error: null });
      } catch (error) {
        if (!abort.signal.aborted) setState((before) => ({ key, data: before.key === key ? before.data : null, error }));
      }
      busy = false;
      if (abort.signal.aborted) return;
      // Changes come in bursts, and a large Run takes a while to list: at most a sixth of the time.
      const rest = Math.max(BETWEEN_MS, (Date.now() - began) * 5);
      if (dirty) schedule(rest);
      else if (latest.current.every > 0) schedule(Math.max(latest.current.every, rest));
    }
    poke.current = () => {
      if (busy) dirty = true;
      else schedule(BETWEEN_MS / 4);
    };
    void run();
    return () => {
      poke.current = () => {};
      abort.abort();
      clearTimeout(timer);
    };
  }, [key, allowed]);
  useEffect(() => poke.current(), [version, every]);
  const fits = state.key === key;
  return { data: fits ? state.data : null, error: fits ? state.error : null, again: () => poke.current() };
}

/** @typedef {import("./types.js").Execution} Execution */
/** @typedef {{items: Execution[], partial: string | null, cut: boolean}} Executions */

/**
 * All targets of a Run, problems first.
 *
 * @param {string | undefined} uid @param {number | null} run @param {{active: boolean, version: unknown}} state
 * @returns {Loaded<Executions>}
 */
export function useExecutions(uid, run, { active, version }) {
  return useLoad(
    uid && run ? `${uid}/${run}` : null,
    async (abort) => {
      const found = await askAll("executions", { taskUid: uid, run: run ?? undefined }, { signal: abort });
      return { ...found, items: problemsFirst(/** @type {Execution[]} */ (found.items)) };
    },
    { version, every: active ? 3000 : 0 },
  );
}

/** @param {Execution[]} items */
export const problemsFirst = (items) => [...items].sort((a, b) => look(a.state).rank - look(b.state).rank || byName(a.node, b.node));

/** One Execution, with what it used. @param {string | undefined} uid @param {number | null} run @param {string} node @param {unknown} version */
export function useExecution(uid, run, node, version) {
  const loaded = useLoad(uid && run ? `${uid}/${run}/${node}` : null, (abort) => ask(`executions/${uid}/${run}/${encodeURIComponent(node)}`, { signal: abort }), { version });
  return /** @type {Loaded<Execution>} */ (loaded);
}

/** Questions at a time. */
const AT_ONCE = 4;

/** @type {import("./attempts.js").Attempts} */
const NONE = new Map();

/** @param {Execution} one */
const version = ({ node, attempt, state }) => `${node} ${attempt} ${state}`;

/**
 * The Attempts of Executions that were tried more than once: a list has the latest only. These are a bounded number.
 *
 * @param {string | undefined} uid @param {number} run @param {Execution[]} tried @returns {import("./attempts.js").Attempts}
 */
export function useAttempts(uid, run, tried) {
  const key = `attempts ${uid}/${run}`;
  const kept = useRef({ key, asked: new Set(), found: new Map() });
  const load = async (/** @type {AbortSignal} */ abort) => {
    if (kept.current.key !== key) kept.current = { key, asked: new Set(), found: new Map() };
    const { asked, found } = kept.current;
    // Each is asked for again when it has changed.
    const waiting = tried.filter((one) => !asked.has(version(one)));
    const work = async () => {
      for (let one = waiting.shift(); one; one = waiting.shift()) {
        const answer = await ask(`executions/${uid}/${run}/${encodeURIComponent(one.node)}`, { signal: abort });
        found.set(one.node, answer.attempts ?? []);
        asked.add(version(one));
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    return new Map(found);
  };
  const { data } = useLoad(uid && tried.length > 0 ? key : null, load, { version: tried.map(version).join() });
  return data ?? NONE;
}

/** What the API says now, and when it was asked, by the clock of the operator. @param {string} path @param {AbortSignal} abort */
async function askNow(path, abort) {
  const asked = Date.now() + clockAhead.peek();
  return { ...(await ask(path, { signal: abort })), asked };
}

/** All nodes, each few seconds. @returns {Loaded<{items: import("./types.js").Node[], asked: number}>} */
export const useNodes = () => useLoad("nodes", (abort) => askNow("nodes", abort), { every: 5000 });

/** One node, each few seconds. @param {string} name @returns {Loaded<import("./types.js").Node & {asked: number}>} */
export const useNode = (name) => useLoad(`now ${name}`, (abort) => askNow(`nodes/${encodeURIComponent(name)}`, abort), { every: 5000 });

/** The last 15 minutes of a node. @param {string} name @returns {Loaded<import("./types.js").Samples>} */
export const useSamples = (name) => useLoad(`samples ${name}`, (abort) => ask(`nodes/${encodeURIComponent(name)}/samples`, { signal: abort }), { every: 5000 });

/** @param {Record<string, string | number | undefined>} query */
export const runsPath = (query) => `runs${search(query)}`;

/** @param {Execution} execution @param {number} now how long it ran, or runs, ms */
export function took(execution, now) {
  if (execution.durationMs != null) return execution.durationMs;
  return execution.startedAt && !hasEnded(execution.state) ? Math.max(0, now - Date.parse(execution.startedAt)) : null;
}

/** The uid of a Task by its name; one that was deleted is found in History. @param {string} ns @param {string} name @param {string | undefined} given */
export function useUid(ns, name, given) {
  const task = findTask(ns, name, given);
  const wanted = !task && !given && synced.value;
  const old = useLoad(wanted ? `uid ${ns}/${name}` : null, (abort) => ask(runsPath({ namespace: ns, task: name, limit: 1 }), { signal: abort }));
  return { task, uid: given ?? task?.metadata.uid ?? old.data?.items[0]?.taskUid, missing: wanted && old.data?.items.length === 0 };
}
