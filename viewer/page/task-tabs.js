// The tabs of a Task that are tables and texts: Nodes, Runs, Conditions, YAML.

import { useMemo, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { at, count, full, lower, plural, since, span, spaced, when } from "./format.js";
import { look, stateText } from "./states.js";
import { executionPath, runPath } from "./address.js";
import { ofTask } from "./draft.js";
import { lines, write } from "./yaml.js";
import { fold } from "./names.js";
import { ask } from "./api.js";
import { Empty, Failure, Scroll, Search, State, Th, copy, sorted } from "./parts.js";
import { here, setQuery, withQuery } from "./route.js";
import { now } from "./live.js";
import { runsPath, took, useLoad } from "./load.js";
import { requestedBy } from "./requesters.js";

/** @typedef {import("./types.js").Task} Task */
/** @typedef {import("./types.js").Execution} Execution */

/** Rows of a table in the document; the filter finds the others. */
const MOST_ROWS = 300;

/** @param {{items: Execution[], cut: boolean, ns: string, name: string, number: number}} props */
export function Nodes({ items, cut, ns, name, number }) {
  const { q = "", state = "", sort = "" } = here.value.query;
  const rows = useMemo(() => {
    const words = q.toLowerCase().split(/\s+/).filter(Boolean);
    const found = items.filter((one) => (!state || one.state === state) && words.every((word) => `${one.node} ${one.message ?? ""} ${look(one.state).word}`.toLowerCase().includes(word)));
    return sorted(found, sort, {
      state: (one) => look(one.state).rank, node: (one) => one.node, code: (one) => one.exitCode ?? -1, attempts: (one) => one.attempt,
      took: (one) => one.durationMs ?? -1, started: (one) => at(one.startedAt) || 0,
    });
  }, [items, q, state, sort]);
  const messages = useMemo(() => byMessage(rows), [rows]);
  const shown = rows.slice(0, MOST_ROWS);
  return html`<div class="tools"><${Search} label="Filter nodes" value=${q} placeholder="Name or message" onInput=${(/** @type {string} */ text) => setQuery({ q: text }, { replace: true })} />
      <span class="soft">${rows.length === items.length ? plural(items.length, "node") : `${count(rows.length)} of ${plural(items.length, "node")}`}${cut ? ", and more" : ""}</span>
      ${(q || state) && html`<a class="link" href=${withQuery({ q: "", state: "" })}>Clear filters</a>`}</div>
    ${messages.length > 0 && html`<ul class="messages" aria-label="Messages of the nodes">${messages.map((group) => html`<li><span class=${`state ${look(group.state).tone}`}><b>${count(group.nodes.length)}</b></span><span class="grow">${group.message}</span><span class="mono soft cut-text" title=${group.names.slice(0, 2000)}>${group.names}</span></li>`)}</ul>`}
    ${shown.length === 0 ? html`<${Empty}>No node matches.</${Empty}>` : html`<${Scroll} label="Nodes"><table class="flat">
      <thead><tr><${Th} name="state" sort=${sort}>State</${Th}><${Th} name="node" sort=${sort}>Node</${Th}><th scope="col" class="wide">Message</th><${Th} name="attempts" sort=${sort} cls="num wide">Attempts</${Th}><${Th} name="took" sort=${sort} cls="num">Took</${Th}><${Th} name="started" sort=${sort} cls="num wide">Started</${Th}></tr></thead>
      <tbody>${shown.map((one) => html`<${NodeRow} key=${one.node} one=${one} path=${executionPath(ns, name, number, one.node)} now=${now.value} />`)}</tbody></table></${Scroll}>`}
    ${rows.length > shown.length && html`<p class="faint more">and ${count(rows.length - shown.length)} more. The filter finds them.</p>`}`;
}

/** Messages that several nodes share; a message of one node is in its row. @param {Execution[]} rows */
function byMessage(rows) {
  /** @type {Map<string, {message: string, state: string, nodes: string[]}>} */
  const groups = new Map();
  for (const { message, state, node } of rows) {
    if (!message || look(state).rank >= 10) continue;
    const group = groups.get(message) ?? { message, state, nodes: [] };
    group.nodes.push(node);
    groups.set(message, group);
  }
  const shared = [...groups.values()].filter((group) => group.nodes.length > 1).sort((a, b) => b.nodes.length - a.nodes.length);
  return shared.slice(0, 5).map((group) => ({ ...group, names: fold(group.nodes) }));
}

/** @param {{one: Execution, path: string, now: number}} props */
function NodeRow({ one, path, now: time }) {
  const ran = took(one, time);
  const started = at(one.startedAt);
  return html`<tr><td><${State} look=${look(one.state)} text=${stateText(one)} title=${one.state} /></td><td><a class="name" href=${path}>${one.node}</a></td>
    <td class="wide"><span class="cut-text what soft" title=${one.message}>${one.message}</span></td><td class="num wide">${one.attempt > 1 ? count(one.attempt) : html`<span class="faint">${one.attempt}</span>`}</td>
    <td class="num">${ran === null ? html`<span class="faint">–</span>` : span(ran)}</td><td class="num soft wide" title=${Number.isNaN(started) ? undefined : full(started)}>${when(started, time)}</td></tr>`;
}

/** @param {{task: Task, number: number | null}} props */
export function Runs({ task, number }) {
  const { namespace, name, uid } = task.metadata;
  const runs = useLoad(`runs ${uid}`, (abort) => ask(runsPath({ taskUid: uid, limit: 100 }), { signal: abort }), { version: task.status?.run?.number ?? 0 });
  if (!runs.data && runs.error) return html`<${Failure} error=${runs.error} what="The Runs could not be read" onRetry=${runs.again} />`;
  /** @type {import("./types.js").Run[]} */
  const items = runs.data?.items ?? [];
  if (runs.data && items.length === 0) return html`<${Empty}>No Run has begun.</${Empty}>`;
  return html`<${Scroll} label="Runs"><table class="flat">
    <thead><tr><th scope="col">Run</th><th scope="col">Verdict</th><th scope="col">Trigger</th><th scope="col" class="num">Nodes</th><th scope="col">Outcomes</th><th scope="col" class="num">Took</th><th scope="col" class="num">Started</th></tr></thead>
    <tbody>${items.map((run) => {
      const started = at(run.startedAt);
      const ended = at(run.finishedAt);
      return html`<tr key=${run.run} aria-current=${run.run === number ? "true" : undefined}><td><a class="name" href=${runPath(namespace, name, run.run)}>Run ${count(run.run)}</a></td>
        <td><${State} look=${look(run.verdict ?? "Running")} text=${run.verdict ? spaced(run.verdict) : "Running"} title=${run.reason ?? undefined} /></td><td class="soft" title=${`Requested by ${requestedBy(run.requestedBy)}`}>${spaced(run.trigger)}</td>
        <td class="num">${count(run.targets)}</td><td class="soft">${Object.entries(run.outcomes).map(([outcome, n]) => `${count(n)} ${lower(spaced(outcome))}`).join(", ")}</td>
        <td class="num">${Number.isNaN(ended) ? "–" : span(ended - started)}</td><td class="num soft" title=${Number.isNaN(started) ? undefined : full(started)}>${since(started, now.value)}</td></tr>`;
    })}</tbody></table></${Scroll}>`;
}

const FIRST = ["Stalled", "Reconciling", "Ready"];

/** @param {{conditions: import("./types.js").Condition[]}} props */
export function Conditions({ conditions }) {
  if (conditions.length === 0) return html`<${Empty}>The operator has not seen this Task yet.</${Empty}>`;
  const place = (/** @type {string} */ type) => (FIRST.includes(type) ? FIRST.indexOf(type) : FIRST.length);
  const ordered = [...conditions].sort((a, b) => place(a.type) - place(b.type));
  return html`<dl class="conditions">${ordered.map((one) => html`<div><dt><span class="mono">${one.type}=${one.status}</span></dt>
    <dd><p>${sentence(one.message)}</p><p class="faint">${spaced(one.reason)}, since <time title=${full(at(one.lastTransitionTime))}>${when(at(one.lastTransitionTime), now.value)}</time></p></dd></div>`)}</dl>`;
}

/** @param {string} text */
const sentence = (text) => (text === "" ? "" : text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : "."));

/** @param {{task: Task}} props */
export function Yaml({ task }) {
  const [said, say] = useState("");
  const whole = useMemo(() => ofTask(task), [task]);
  const { namespace, name } = task.metadata;
  return html`<div class="tools"><span class="grow"></span><span class="faint" role="status">${said}</span><button type="button" class="btn" onClick=${() => copy(write(whole), say)}>Copy</button><a class="btn" href=${`tasks/new?from=${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`}>Edit</a></div>
    <details class="plain-fold" open><summary>What was written</summary><${YamlText} value=${whole} /></details>
    <details class="plain-fold"><summary>Status</summary><${YamlText} value=${{ status: task.status ?? {} }} /></details>`;
}

/** `wrong` is asked with whether what is below the path is in its line. @param {{value: Record<string, unknown>, wrong?: (path: string, whole: boolean) => boolean}} props */
export function YamlText({ value, wrong = () => false }) {
  return html`<pre class="yaml" tabindex="0">${lines(value).map(({ indent, key, value: text, path }) => {
    const dash = key.startsWith("- ") ? "- " : "";
    return html`<span class=${wrong(path, text !== "") ? "wrong" : "y"}>${" ".repeat(indent)}${dash}${key && html`<span class="k">${key.slice(dash.length)}</span>:`}${key && text ? " " : ""}${text && html`<span class=${key ? "v" : ""}>${text}</span>`}${"\n"}</span>`;
  })}</pre>`;
}
