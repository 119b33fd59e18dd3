// The list of Tasks: under way first, then failed, then by start.

import { useMemo } from "./vendor/hooks.js";
import { html } from "./html.js";
import { at, count, full, lower, since, span, spaced } from "./format.js";
import { sharesOfCounts, taskLook, worst } from "./states.js";
import { taskPath, runPath } from "./address.js";
import { commandText } from "./draft.js";
import { Empty, Icon, Meter, Note, Pick, Scroll, Search, Seg, State, Th, focusFilter, rowKeys, sorted, useTitle } from "./parts.js";
import { here, setQuery, withQuery } from "./route.js";
import { connection, now, synced, tasks } from "./live.js";
import { useKeys } from "./keys.js";

/** @typedef {import("./types.js").Task} Task */

/** Most rows at once; the filter finds the others. */
const MOST = 500;

/** @type {Record<string, string>} */
const KINDS = { Running: "active", Pending: "active", Failed: "failed", Rejected: "failed", Succeeded: "complete" };

/** @param {Task} task */
const kindOf = (task) => KINDS[task.status?.phase ?? "Pending"] ?? "other";

const ORDER = ["active", "failed", "complete", "other"];

/** @param {Task} task */
const startOf = (task) => at(task.status?.run?.startedAt ?? task.metadata.creationTimestamp) || 0;

export function TasksPage() {
  const { query } = here.value;
  const { phase = "all", ns = "", q = "", sort = "" } = query;
  useTitle("Tasks");
  useKeys("Tasks", [focusFilter, ...rowKeys]);
  const all = useMemo(() => [...tasks.value.values()], [tasks.value]);
  const matching = useMemo(() => {
    const words = q.toLowerCase().split(/\s+/).filter(Boolean);
    return all.filter((task) => {
      const { namespace, name } = task.metadata;
      if (ns && namespace !== ns) return false;
      const text = `${namespace}/${name} ${commandText(task.spec.run)}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
  }, [all, q, ns]);
  const rows = useMemo(() => {
    const wanted = matching.filter((task) => phase === "all" || kindOf(task) === phase);
    const usual = wanted.sort((a, b) => ORDER.indexOf(kindOf(a)) - ORDER.indexOf(kindOf(b)) || startOf(b) - startOf(a) || (a.metadata.name < b.metadata.name ? -1 : 1));
    return sorted(usual, sort, { state: (task) => ORDER.indexOf(kindOf(task)), name: (task) => task.metadata.name, run: (task) => task.status?.run?.number ?? 0, started: startOf });
  }, [matching, phase, sort]);
  const namespaces = useMemo(() => [...new Set(all.map((task) => task.metadata.namespace))].sort(), [all]);
  const kinds = (/** @type {string} */ kind) => matching.filter((task) => kindOf(task) === kind).length;
  const segment = (/** @type {string} */ value, /** @type {string} */ icon, /** @type {string} */ cls, /** @type {string} */ text) => ({ value, text: html`<${Icon} name=${icon} cls=${cls} />${text} ${count(kinds(value))}` });
  return html`<main id="main" tabindex="-1" class=${connection.value.lost ? "aging" : ""}>
    <div class="head"><div class="head-line"><h1>Tasks</h1><span class="grow"></span><a class="btn solid" href="tasks/new"><${Icon} name="plus" />New Task</a></div></div>
    <div class="toolbar">
      <${Seg} label="Phase" name="phase" value=${phase} options=${[
        { value: "all", text: `All ${count(matching.length)}` },
        segment("active", "running", "run", "Under way"),
        segment("failed", "failed", "bad", "Failed"),
        segment("complete", "ok", "ok", "Complete"),
        segment("other", "paused", "", "Other"),
      ]} />
      <${Search} label="Filter Tasks" value=${q} placeholder="Name, namespace or command" onInput=${(/** @type {string} */ text) => setQuery({ q: text }, { replace: true })} />
      ${namespaces.length > 1 && html`<${Pick} cls="wide" label="Namespace" value=${ns} options=${[["", "All namespaces"], ...namespaces.map((name) => [name, name])]} onPick=${(/** @type {string} */ value) => setQuery({ ns: value })} />`}
      <span class="grow"></span>${sort === "" && rows.length > 0 && html`<span class="faint wide">Under way first, then failed</span>`}
    </div>
    ${rows.length > MOST && html`<${Note} tone="off" icon="find">${count(MOST)} of ${count(rows.length)} Tasks are shown. The filter finds the others.</${Note}>`}
    ${rows.length > 0 ? html`<${Table} rows=${rows.slice(0, MOST)} sort=${sort} />`
      : !synced.value ? html`<div aria-busy="true"></div>`
      : all.length === 0 ? html`<${Empty}>No Tasks yet. <a class="link" href="tasks/new">Make one here</a>, or with <code>sentinel run --all -- uname -a</code>.</${Empty}>`
      : html`<${Empty}>No Task matches. <a class="link" href=${withQuery({ phase: "", ns: "", q: "" })}>Clear filters</a></${Empty}>`}
  </main>`;
}

/** @param {{rows: Task[], sort: string}} props */
function Table({ rows, sort }) {
  return html`<${Scroll} label="Tasks"><table class="tasks">
    <thead><tr><${Th} name="state" sort=${sort}>State</${Th}><${Th} name="name" sort=${sort}>Task</${Th}><th class="wide" scope="col">Command</th><th scope="col">Nodes done</th><th scope="col">Last runs</th><${Th} name="run" sort=${sort}>Run</${Th}><${Th} name="started" sort=${sort} cls="num">Started</${Th}></tr></thead>
    <tbody>${rows.map((task) => html`<${Row} key=${task.metadata.uid} task=${task} now=${now.value} />`)}</tbody></table></${Scroll}>`;
}

/** @param {{task: Task, now: number}} props */
function Row({ task, now: time }) {
  const { namespace, name } = task.metadata;
  const { phase, run, recentRuns = [] } = task.status ?? {};
  const counts = run?.counts ?? {};
  const total = run?.targetCount ?? 0;
  const done = (counts.succeeded ?? 0) + (counts.failed ?? 0) + (counts.unreachable ?? 0);
  const shares = sharesOfCounts(counts);
  const bad = worst(shares);
  const active = phase === "Running" || (phase === "Pending" && run && !run.verdict);
  const started = at(run?.startedAt);
  const command = commandText(task.spec.run);
  return html`<tr>
    <td><${State} look=${taskLook(phase)} title=${phase ?? "Pending"} /></td>
    <td class="two"><a class="name" href=${taskPath(namespace, name)}>${name}</a><small>${namespace}</small></td>
    <td class="wide"><code class="what cut-text soft" title=${command.slice(0, 500)}>${command.slice(0, 200)}</code></td>
    <td class="prog">${total > 0 ? html`<${Meter} goodFirst shares=${shares} total=${total} label=${`${done} of ${total}`} /><div class="under"><span>${count(done)} of ${count(total)}</span>${bad && html`<span class=${bad.tone === "off" ? "soft" : bad.tone}>${bad.text}</span>`}</div>` : html`<span class="faint">${run ? "no node" : "–"}</span>`}</td>
    <td><${Strip} runs=${run ? [run, ...recentRuns] : recentRuns} /></td>
    <td class="two">${run ? html`<a href=${runPath(namespace, name, run.number)}>Run ${count(run.number)}</a><small>${spaced(run.trigger ?? "")}</small>` : html`<span class="faint">–</span>`}</td>
    <td class="num soft" title=${Number.isNaN(started) ? undefined : full(started)}>${active && !Number.isNaN(started) ? span(Math.floor((time - started) / 1000) * 1000) : since(started, time)}</td></tr>`;
}

/** The last ten Runs, oldest first. @param {{runs: import("./types.js").RunStatus[]}} props */
function Strip({ runs }) {
  const last = runs.slice(0, 10).reverse();
  if (last.length === 0) return null;
  const words = last.map((run) => (run.verdict ? lower(spaced(run.verdict)) : "running"));
  return html`<svg class="cells runs-strip" role="img" aria-label=${`Last runs, oldest first: ${words.join(", ")}`}>
    ${last.map((run, index) => {
      const x = index * 9;
      if (run.verdict === "Complete") return html`<rect class="ok calm-cell" x=${x} y="3" width="6" height="12" rx="1" />`;
      if (run.verdict === "Cancelled") return html`<rect class="off solid-cell" x=${x + 2} y="7" width="2" height="4" rx="1" />`;
      const onlyLost = run.verdict === "Failed" && !run.counts?.failed && (run.counts?.unreachable ?? 0) > 0;
      if (run.verdict === "Failed" && !onlyLost) return html`<g class="bad"><rect class="solid-cell" x=${x} y="1" width="6" height="16" rx="1" /><path class="cell-cut" d=${`M${x + 1.6} 7.6l2.8 2.8m0-2.8-2.8 2.8`} /></g>`;
      return html`<rect class=${`${onlyLost ? "lost" : "run"} open-cell`} x=${x + 0.75} y="3.75" width="4.5" height="10.5" rx="1" />`;
    })}</svg>`;
}
