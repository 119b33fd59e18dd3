// What ran: Executions or Runs, newest first, days as group rows, older ones by cursor.

import { useEffect, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { at, bytes, clock, count, day, full, lower, memory, sameDay, span, spaced } from "./format.js";
import { look } from "./states.js";
import { executionPath, runPath } from "./address.js";
import { ask, search } from "./api.js";
import { Empty, Failure, Note, Pick, Scroll, Search, Seg, State, focusFilter, rowKeys, useTitle } from "./parts.js";
import { here, setQuery, withQuery } from "./route.js";
import { connection, now, synced, tasks } from "./live.js";
import { useKeys } from "./keys.js";
import { took, useLoad } from "./load.js";
import { requestedBy } from "./requesters.js";

/** @typedef {import("./types.js").Execution} Execution */
/** @typedef {import("./types.js").Run} Run */

const OUTCOMES = ["Succeeded", "Failed", "Signaled", "StartFailed", "TimedOut", "IdleTimedOut", "StartTimedOut", "OomKilled", "Cancelled", "CancelFailed", "Refused", "Interrupted", "Lost", "NotStarted"];

/** Names of the API: what makes a Run begin. */
const TRIGGERS = ["SpecChange", "RerunToken"];
const triggerText = (/** @type {string} */ name) => (name === "RerunToken" ? "Rerun" : spaced(name));

/** @type {[string, string][]} */
const SPANS = [["", "Any time"], ["1h", "Last hour"], ["24h", "Last 24 hours"], ["168h", "Last 7 days"], ["range", "From … to …"]];

export function HistoryPage() {
  const { rows = "executions", task = "", node = "", outcome = "", ns = "", trigger = "", since = "", until = "" } = here.value.query;
  const isRuns = rows === "runs";
  const query = { namespace: ns, task, ...(isRuns ? {} : { node, outcome }), trigger, since, until };
  const path = isRuns ? "runs" : "executions";
  useTitle("History");
  useKeys("History", [focusFilter, ...rowKeys]);
  const key = path + search(query);
  const first = useLoad(key, (abort) => ask(path + search({ ...query, limit: 100 }), { signal: abort }), { every: 5000 });
  const [older, setOlder] = useState(/** @type {{key: string, items: any[], next: string | undefined, busy: boolean, error: string}} */ ({ key: "", items: [], next: undefined, busy: false, error: "" }));
  const more = older.key === key ? older : { key, items: [], next: undefined, busy: false, error: "" };
  const newest = first.data?.items ?? [];
  const known = new Set(more.items.map(idOf));
  // While pages are loaded below, the first one moves on: what it has of them is shown once.
  const items = [...newest.filter((/** @type {any} */ item) => !known.has(idOf(item))), ...more.items];
  const next = more.items.length > 0 || more.next ? more.next : first.data?.next;
  const load = async () => {
    setOlder({ ...more, busy: true, error: "" });
    try {
      const answer = await ask(path + search({ ...query, limit: 100, page: next }));
      const before = more.items.length > 0 ? more.items : newest;
      setOlder({ key, items: [...before, ...answer.items], next: answer.next, busy: false, error: "" });
    } catch (error) {
      setOlder({ ...more, busy: false, error: error instanceof Error ? error.message : String(error) });
    }
  };
  const filtered = task || node || outcome || ns || trigger || since || until;
  const within = until || since.includes("T") ? "range" : since;
  const pickSpan = (/** @type {string} */ value) => setQuery(value === "range" ? { since: new Date(now.peek() - 86_400_000).toISOString().slice(0, 17) + "00Z", until: "" } : { since: value, until: "" });
  const set = (/** @type {string} */ name, /** @type {string} */ value) => setQuery({ [name]: value }, { replace: true });
  return html`<main id="main" tabindex="-1" class=${connection.value.lost ? "aging" : ""}>
    <div class="head"><div class="head-line"><h1>History</h1></div></div>
    <div class="toolbar">
      <${Name} label="Task" name="task" value=${task} id="filter" onSet=${set} />${!isRuns && html`<${Name} label="Node" name="node" value=${node} id="filter-node" onSet=${set} />
      <${Pick} label="Outcome" value=${outcome} options=${[["", "Any outcome"], ...OUTCOMES.map((name) => [name, look(name).word])]} onPick=${(/** @type {string} */ value) => setQuery({ outcome: value })} />`}
      <${Pick} label="Trigger" value=${trigger} options=${[["", "Any trigger"], ...TRIGGERS.map((name) => [name, triggerText(name)])]} onPick=${(/** @type {string} */ value) => setQuery({ trigger: value })} />
      <${Pick} label="Run began" value=${within} options=${SPANS.some(([key]) => key === within) ? SPANS : [...SPANS, [within, `Last ${within}`]]} onPick=${pickSpan} />
      ${within === "range" && html`<${Moment} label="From" name="since" value=${since} /><${Moment} label="to" name="until" value=${until} />`}
      <span class="grow"></span><${Seg} label="Rows" name="rows" value=${rows} options=${[{ value: "executions", text: "Executions" }, { value: "runs", text: "Runs" }]} />
    </div>
    ${first.data?.partial && html`<${Note}>Only what is not archived yet is shown: ${first.data.partial.message}</${Note}>`}
    ${!first.data && first.error ? html`<${Failure} error=${first.error} what="History could not be read" onRetry=${first.again} />`
      : !first.data ? html`<div aria-busy="true"></div>`
      : items.length === 0 ? html`<${Empty}>${filtered ? html`Nothing matches. <a class="link" href=${withQuery({ task: "", node: "", outcome: "", ns: "", trigger: "", since: "", until: "" })}>Clear filters</a>` : "Nothing has run yet."}</${Empty}>`
      : isRuns ? html`<${Scroll} label="Runs"><table>${runsHead}<tbody>${days(/** @type {Run[]} */ (items), now.value, 8, runRow)}</tbody></table></${Scroll}>`
      : html`<${Scroll} label="Executions"><table>${executionsHead}<tbody>${days(/** @type {Execution[]} */ (items), now.value, 12, executionRow)}</tbody></table></${Scroll}>`}
    ${(next || more.error) && items.length > 0 && html`<p class="more"><button type="button" class="btn" disabled=${more.busy} onClick=${load}>Older</button> ${more.error && html`<span class="bad" role="alert">${more.error}</span>`}</p>`}
  </main>`;
}

/** The API filters by whole names, so they are asked for when they are whole. @param {{label: string, name: string, value: string, id: string, onSet: (name: string, value: string) => void}} props */
function Name({ label, name, value, id, onSet }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  const valid = text === "" || /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(text);
  const apply = () => valid && text !== value && onSet(name, text);
  return html`<form class="inline" onSubmit=${(/** @type {Event} */ event) => (event.preventDefault(), apply())} onFocusOut=${apply}><${Search} id=${id} label=${label} value=${text} placeholder=${`${label}, its whole name`} onInput=${setText} /></form>`;
}

/** A time of the reader's zone, which the address has in UTC. @param {{label: string, name: string, value: string}} props */
function Moment({ label, name, value }) {
  const date = new Date(value);
  const local = Number.isNaN(date.getTime()) ? "" : new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
  const set = (/** @type {string} */ text) => setQuery({ [name]: text ? new Date(text).toISOString().slice(0, 17) + "00Z" : "" }, { replace: true });
  return html`<label class="field moment"><span>${label}</span><input type="datetime-local" value=${local} onChange=${(/** @type {any} */ event) => set(event.currentTarget.value)} /></label>`;
}

/** @param {any} item */
const idOf = (item) => `${item.taskUid}/${item.run}/${item.node ?? ""}`;

const executionsHead = html`<thead><tr><th scope="col" aria-sort="descending">Started</th><th scope="col">Outcome</th><th scope="col">Task</th><th scope="col" class="num">Run</th><th scope="col">Node</th><th scope="col" class="num">Code</th><th scope="col" class="num">Took</th><th scope="col" class="num">CPU</th><th scope="col" class="num">Memory, peak</th><th scope="col" class="num">Output</th><th scope="col" class="num">Attempts</th><th scope="col">Trigger</th></tr></thead>`;
const runsHead = html`<thead><tr><th scope="col" aria-sort="descending">Started</th><th scope="col">Verdict</th><th scope="col">Task</th><th scope="col" class="num">Run</th><th scope="col" class="num">Nodes</th><th scope="col">Outcomes</th><th scope="col" class="num">Took</th><th scope="col">Trigger</th></tr></thead>`;

/** What never started has the time of its end. @param {{startedAt?: string | null, endedAt?: string | null}} item */
const timeOf = (item) => at(item.startedAt ?? item.endedAt);

/**
 * @template {{startedAt?: string | null}} T
 * @param {T[]} items @param {number} time @param {number} columns @param {(item: T, time: number) => any} row
 */
function days(items, time, columns, row) {
  const out = [];
  let last = NaN;
  for (const item of items) {
    const started = timeOf(item);
    if (!Number.isNaN(started) && !(sameDay(started, last))) {
      last = started;
      out.push(html`<tr class="day" key=${`day ${day(started, time)}`}><th colspan=${columns} scope="rowgroup">${day(started, time)}</th></tr>`);
    }
    out.push(row(item, time));
  }
  return out;
}

/** The uid, where a Task of that name was made anew. @param {{namespace: string, task: string, taskUid: string}} of */
function oldUid({ namespace, task, taskUid }) {
  if (!synced.value) return undefined;
  for (const known of tasks.value.values()) if (known.metadata.name === task && known.metadata.namespace === namespace) return known.metadata.uid === taskUid ? undefined : taskUid;
  return undefined;
}

/** @param {Execution} one @param {number} time */
function executionRow(one, time) {
  const started = timeOf(one);
  const ran = took(one, time);
  const uid = oldUid(one);
  return html`<tr key=${idOf(one)}><td class="soft" title=${Number.isNaN(started) ? undefined : full(started)}>${Number.isNaN(started) ? "–" : clock(started)}</td><td><${State} look=${look(one.state)} title=${one.message} /></td>
    <td><a href=${runPath(one.namespace, one.task, one.run, { uid })} title=${one.command}>${one.task}</a></td><td class="num soft">${count(one.run)}</td><td><a class="name" href=${executionPath(one.namespace, one.task, one.run, one.node, { uid })}>${one.node}</a></td>
    <td class="num">${one.exitCode ?? "–"}</td><td class="num">${ran === null ? "–" : span(ran)}</td><td class="num soft">${one.cpuMs == null ? "–" : span(one.cpuMs)}</td><td class="num soft">${one.maxRss ? memory(one.maxRss) : "–"}</td><td class="num soft">${one.outputBytes == null ? "–" : bytes(one.outputBytes)}</td><td class="num">${one.attempt > 1 ? one.attempt : html`<span class="faint">${one.attempt}</span>`}</td><td class="soft" title=${one.trigger ?? undefined}>${one.trigger ? triggerText(one.trigger) : "–"}</td></tr>`;
}

/** @param {Run} run @param {number} time */
function runRow(run, time) {
  const started = at(run.startedAt);
  const ended = at(run.finishedAt);
  return html`<tr key=${idOf(run)}><td class="soft" title=${Number.isNaN(started) ? undefined : full(started)}>${Number.isNaN(started) ? "–" : clock(started)}</td><td><${State} look=${look(run.verdict ?? "Running")} text=${run.verdict ? spaced(run.verdict) : "Running"} title=${run.reason ?? undefined} /></td>
    <td><a class="name" href=${runPath(run.namespace, run.task, run.run, { uid: oldUid(run) })} title=${run.command}>${run.task}</a> <span class="faint">${run.namespace}</span></td><td class="num soft">${count(run.run)}</td><td class="num">${count(run.targets)}</td>
    <td class="soft">${Object.entries(run.outcomes).map(([outcome, n]) => `${count(n)} ${lower(look(outcome).word)}`).join(", ")}</td><td class="num">${span((Number.isNaN(ended) ? time : ended) - started)}</td><td class="soft" title=${`Requested by ${requestedBy(run.requestedBy)}`}>${triggerText(run.trigger)}</td></tr>`;
}
