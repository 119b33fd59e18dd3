// Tasks as they are now, by one stream for the whole page.

import { computed, effect, signal } from "./vendor/signals.js";
import { clockAhead, EventStream, refused, token } from "./api.js";

/** @typedef {import("./types.js").Task} Task */

/** By uid: a name can be used again. @type {import("./vendor/signals.js").Signal<Map<string, Task>>} */
export const tasks = signal(new Map());

/** Whether every Task has been received once. */
export const synced = signal(false);

/** Of the clock of the operator, each second. */
export const now = signal(Date.now());

setInterval(() => {
  if (!document.hidden) now.value = Date.now() + clockAhead.peek();
}, 1000);
document.addEventListener("visibilitychange", () => {
  now.value = Date.now() + clockAhead.peek();
});

/** @type {import("./vendor/signals.js").Signal<EventStream | null>} */
const stream = signal(null);

/** What came and is not shown yet: many events are one change of the page. @type {Map<string, Task | null>} */
const pending = new Map();
let timer = 0;
/** Tasks that have come since this connection was made; the others were deleted meanwhile. */
let seen = /** @type {Set<string> | null} */ (new Set());

function publish() {
  timer = 0;
  const next = new Map(tasks.peek());
  for (const [uid, task] of pending) {
    if (task) next.set(uid, task);
    else next.delete(uid);
  }
  pending.clear();
  tasks.value = next;
}

/** @param {import("./sse.js").ServerEvent} event */
function take({ event, data }) {
  if (event === "synced") {
    if (seen) for (const uid of tasks.peek().keys()) if (!seen.has(uid)) pending.set(uid, null);
    seen = null;
    clearTimeout(timer);
    publish();
    synced.value = true;
    return;
  }
  if (event !== "task" && event !== "deleted") return;
  /** @type {Task} */
  const task = JSON.parse(data);
  pending.set(task.metadata.uid, event === "task" ? task : null);
  seen?.add(task.metadata.uid);
  timer ||= setTimeout(publish, synced.peek() ? 50 : 300);
}

// Begins anew with another token.
effect(() => {
  token.value;
  if (refused.value) return undefined;
  const opened = new EventStream(() => "events", take);
  stream.value = opened;
  const stop = opened.connection.subscribe(({ live }) => {
    if (live) seen = new Set();
  });
  return () => {
    stop();
    opened.close();
  };
});

/** How the connection is, in the words of the top bar. */
export const connection = computed(() => {
  const state = stream.value?.connection.value;
  if (!state || state.live) return { tone: "ok", icon: "here", word: "Live", lost: 0 };
  // A connection that comes back at once is no news.
  if (now.value - clockAhead.peek() - state.since < 2000) return { tone: "ok", icon: "here", word: synced.value ? "Live" : "Connecting", lost: 0 };
  if (!navigator.onLine) return { tone: "lost", icon: "late", word: "Offline", lost: state.since };
  return { tone: "late", icon: "late", word: "Reconnecting", lost: state.since };
});

/** The Task of that name, or an earlier one by its uid. @param {string} ns @param {string} name @param {string} [uid] */
export function findTask(ns, name, uid) {
  if (uid) return tasks.value.get(uid);
  for (const task of tasks.value.values()) if (task.metadata.namespace === ns && task.metadata.name === name) return task;
  return undefined;
}
