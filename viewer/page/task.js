// A Task: its head with the bar of all targets, the tabs, and the rail.

import { useMemo, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { ago, at, count, full, lower, plural, spaced, when } from "./format.js";
import { hasEnded, isProblem, look, shares, sharesOfCounts, stateText, taskLook } from "./states.js";
import { executionPath, logPath, runPath, taskPath } from "./address.js";
import { Approve, awaited } from "./approve.js";
import { commandText } from "./draft.js";
import { selectorText } from "./selector.js";
import { ApiError, ask, search } from "./api.js";
import { Cell, Chip, Confirm, Empty, Facts, Failure, Icon, Legend, Meter, Note, Panel, focusFilter, rowKeys, tabKeys, useTitle } from "./parts.js";
import { go, here, withQuery } from "./route.js";
import { connection, findTask, now, synced } from "./live.js";
import { useKeys } from "./keys.js";
import { useExecutions, useLoad, runsPath } from "./load.js";
import { Grid, pitchFor } from "./grid.js";
import { requestedBy, requesterTitle } from "./requesters.js";
import { Conditions, Nodes, Runs, Yaml } from "./task-tabs.js";
import { Timeline } from "./timeline.js";
import { Outputs, useOutputs } from "./outputs.js";

/** @typedef {import("./types.js").Task} Task */
/** @typedef {import("./types.js").Execution} Execution */
/** @typedef {import("./types.js").RunStatus} RunStatus */
/** @typedef {import("./types.js").LatestRun} LatestRun */

/** More cells than this are counts instead. */
const MOST_CELLS = 2000;

const TABS = ["outputs", "nodes", "timeline", "runs", "conditions", "yaml"];

export function TaskPage() {
  const { ns, name, query } = here.value;
  const task = findTask(ns, name, query.uid);
  useTitle(`${ns}/${name}`);
  if (!task) return synced.value ? html`<${NoTask} ns=${ns} name=${name} />` : html`<main id="main" tabindex="-1" aria-busy="true"><div class="head"><div class="head-line"><${Crumbs} ns=${ns} /><h1>${name}</h1></div></div></main>`;
  return html`<${Known} task=${task} />`;
}

/** @param {{ns: string}} props */
const Crumbs = ({ ns }) => html`<div class="crumbs"><a href="tasks">Tasks</a> / <a href=${`tasks?ns=${encodeURIComponent(ns)}`}>${ns}</a> /</div>`;

/** @param {{ns: string, name: string}} props */
function NoTask({ ns, name }) {
  const old = useLoad(`old ${ns}/${name}`, (abort) => ask(runsPath({ namespace: ns, task: name, limit: 1 }), { signal: abort }));
  const known = old.data?.items.length > 0;
  return html`<main id="main" tabindex="-1"><div class="empty"><h1>There is no Task ${ns}/${name}</h1>
    <p>${known ? html`It was deleted. <a class="link" href=${`history?task=${encodeURIComponent(name)}`}>Its Runs are in History.</a>` : html`<a class="link" href="tasks">All Tasks</a>`}</p></div></main>`;
}

/** @param {{task: Task}} props */
function Known({ task }) {
  const { ns, name, run: asked, query } = here.value;
  const { phase, run: latest, recentRuns = [], conditions = [] } = task.status ?? {};
  const number = asked ?? latest?.number ?? null;
  const isLatest = number === (latest?.number ?? null);
  const [dialog, setDialog] = useState(/** @type {"" | "cancel" | "rerun" | "delete" | "approve"} */ (""));
  const run = isLatest ? latest : recentRuns.find((other) => other.number === number);
  const active = Boolean(isLatest && latest && !latest.verdict);
  const executions = useExecutions(task.metadata.uid, number, { active, version: isLatest ? task.metadata.resourceVersion + JSON.stringify(latest?.counts ?? {}) : 0 });
  const items = executions.data?.items ?? null;
  /** @type {import("./states.js").Share[]} */
  const list = useMemo(() => (items ? shares(items.map((one) => one.state)) : sharesOfCounts(run?.counts)), [items, run]);
  const done = list.filter((share) => hasEnded(share.name)).reduce((all, share) => all + share.count, 0);
  const outputs = useOutputs(task.metadata.uid, number, query.equal ?? "stdout", { active, version: done });
  // An operator that cannot fold has no such tab.
  const folds = !(outputs.error instanceof ApiError && outputs.error.status === 404);
  const tab = TABS.includes(query.tab ?? "") && (folds || query.tab !== "outputs") ? query.tab : folds && number !== null ? "outputs" : "nodes";
  const problems = useMemo(() => (items ?? []).filter((one) => isProblem(one.state)), [items]);
  const log = number === null ? null : logPath(ns, name, number, problems[0] ? { node: problems[0].node } : {});
  const step = (/** @type {number} */ by) => {
    if (problems.length === 0 || number === null) return;
    go(executionPath(ns, name, number, problems[by > 0 ? 0 : problems.length - 1].node));
  };
  const failed = (items ?? []).filter((one) => hasEnded(one.state) && one.state !== "Succeeded").length;
  const rerunFailed = failed > 0 && !active && number !== null ? `tasks/new?from=${encodeURIComponent(ns)}/${encodeURIComponent(name)}&failed=${number}` : "";
  const before = Math.max(0, ...recentRuns.map((other) => other.number).filter((other) => number !== null && other < number));
  const awaiting = awaited(task);
  useKeys("Task", [
    focusFilter, ...tabKeys, ...rowKeys,
    { key: "l", does: "Log", run: () => log && go(log) },
    { key: "e", does: "First problem", run: () => step(1) },
    { key: "E", does: "Last problem", run: () => step(-1) },
    { key: "C", does: "Cancel this Run", shown: "Shift+C", run: () => active && setDialog("cancel") },
    { key: "A", does: "Approve the Run that waits", shown: "Shift+A", run: () => awaiting && setDialog("approve") },
    { key: "r", does: "Run again", run: () => setDialog("rerun") },
    { key: "R", does: "Rerun the failed nodes", shown: "Shift+R", run: () => rerunFailed && go(rerunFailed) },
  ]);
  const total = isLatest ? latest?.targetCount ?? items?.length ?? 0 : items?.length ?? sum(run?.counts);
  const rejected = conditions.find((one) => one.type === "Accepted" && one.status === "False");
  const held = conditions.find((one) => one.type === "Ready" && ["AwaitingApproval", "CeilingsUnreadable"].includes(one.reason));
  const archived = conditions.find((one) => one.type === "Archived" && one.status === "False");
  return html`<main id="main" tabindex="-1" class=${connection.value.lost ? "aging" : ""}>
    <div class="head">
      <div class="head-line"><${Crumbs} ns=${ns} /><h1>${name}</h1><${RunChip} phase=${phase} number=${number} isLatest=${isLatest} run=${run} latest=${latest} /><span class="grow break"></span>
        ${log && html`<a class="btn" href=${log}>Log</a>`}<a class="btn" href=${`tasks/new?from=${encodeURIComponent(ns)}/${encodeURIComponent(name)}`}>Edit…</a>
        ${rerunFailed ? html`<a class="btn" href=${rerunFailed} title=${`A new Task on the ${plural(failed, "node")} that did not succeed`}>Rerun failed…</a>` : failed > 0 && html`<button type="button" class="btn" disabled title="When this Run has ended">Rerun failed…</button>`}
        ${awaiting && html`<button type="button" class="btn solid" onClick=${() => setDialog("approve")}>Approve Run ${count(awaiting.run)}…</button>`}
        <button type="button" class="btn" onClick=${() => setDialog("rerun")}>Rerun…</button>
        ${active && latest ? html`<button type="button" class="btn" onClick=${() => setDialog("cancel")}>Cancel Run ${count(latest.number)}…</button>` : html`<button type="button" class="btn" onClick=${() => setDialog("delete")}>Delete…</button>`}</div>
      <p class="goal cut-text"><code>${commandText(task.spec.run).slice(0, 300)}</code></p>
      ${total > 0 && html`<div class="progress"><${Meter} shares=${list} total=${total} label=${list.map((share) => `${share.count} ${lower(share.look.word)}`).join(", ")} />
        <${Legend} shares=${list} value=${query.state ?? ""} end=${html`<${Verdict} task=${task} run=${run} isLatest=${isLatest} done=${done} total=${total} />`} />
        <p class="sr" aria-live="polite">${spoken(done, total, problems.length)}</p></div>`}
    </div>
    ${rejected && html`<${Note} tone="bad" icon="failed">${rejected.message} Nothing of this edit runs.</${Note}>`}
    ${held && html`<${Note} tone="late" icon="paused">${held.message}.</${Note}>`}
    ${archived && html`<${Note} tone="late">Results and output wait on the nodes and are archived when History is back. <span class="faint">${archived.message}</span></${Note}>`}
    ${query.uid && html`<${Note} tone="off" icon="paused">This is the Task with the uid ${query.uid}.</${Note}>`}
    ${executions.data?.partial && html`<${Note} tone="late">Some nodes may be missing: ${executions.data.partial}</${Note}>`}
    <nav class="tabs" aria-label="Task">${tabs(folds ? outputs.data?.groups.length ?? 0 : null, items?.length ?? total, recentRuns.length + (latest ? 1 : 0)).map(([key, title, n]) => html`<a href=${withQuery({ tab: key })} aria-current=${tab === key ? "page" : undefined}>${title}${n ? html`<span class="n">${count(n)}</span>` : ""}</a>`)}</nav>
    <div class="split"><div class="body">
      ${tab === "outputs" && number !== null && (items === null || items.length > 0) ? html`<${Outputs} loaded=${outputs} runs=${latest ? [latest, ...recentRuns] : recentRuns} uid=${task.metadata.uid} number=${number} ns=${ns} name=${name} />`
        : tab === "outputs" || tab === "nodes" || tab === "timeline" ? html`<${Targets} tab=${tab} task=${task} number=${number} total=${total} executions=${executions} run=${run} />`
        : tab === "runs" ? html`<${Runs} task=${task} number=${number} />`
        : tab === "conditions" ? html`<${Conditions} conditions=${conditions} />`
        : html`<${Yaml} task=${task} />`}
    </div><aside>
      ${items && items.length > 1 && number !== null && html`<${Panel} title="Nodes" side="problems first"><${NodeGrid} items=${items} ns=${ns} name=${name} number=${number} /></${Panel}>`}
      <${Panel} title="Runs" side=${folds && number !== null && before ? html`<a class="link" href=${runPath(ns, name, number, { against: `run:${before}` })}>Compare</a>` : ""}><${RunList} task=${task} number=${number} /></${Panel}>
      <${Panel} title="This Run"><${RunFacts} task=${task} run=${run} isLatest=${isLatest} /></${Panel}>
    </aside></div>
    ${dialog === "approve" ? awaiting && html`<${Approve} task=${task} awaiting=${awaiting} onClose=${() => setDialog("")} />`
      : dialog && html`<${Question} kind=${dialog} task=${task} list=${list} onClose=${() => setDialog("")} />`}
  </main>`;
}

/** @param {number | null} outputs @param {number} nodes @param {number} runs @returns {[string, string, number][]} */
const tabs = (outputs, nodes, runs) => [...(outputs === null ? [] : [/** @type {[string, string, number]} */ (["outputs", "Outputs", outputs])]), ["nodes", "Nodes", nodes], ["timeline", "Timeline", 0], ["runs", "Runs", runs], ["conditions", "Conditions", 0], ["yaml", "YAML", 0]];

/** @param {import("./types.js").Counts | undefined} counts */
const sum = (counts) => Object.values(counts ?? {}).reduce((all, n) => all + n, 0);

/** Each whole tenth and the first failure, not each node. @param {number} done @param {number} total @param {number} problems */
const spoken = (done, total, problems) => (total === 0 ? "" : `${Math.floor((done * 10) / total) * 10}% done${problems > 0 ? ", with failures" : ""}`);

/** @param {{phase?: string | null, number: number | null, isLatest: boolean, run?: RunStatus | null, latest?: import("./types.js").LatestRun | null}} props */
function RunChip({ phase, number, isLatest, run, latest }) {
  if (number === null) return html`<${Chip} look=${taskLook(phase)} />`;
  if (!isLatest) return html`<${Chip} look=${look(run?.verdict ?? "Pending")} text=${`${run?.verdict ? spaced(run.verdict) : "Ended"} · Run ${count(number)}`} />`;
  const shown = taskLook(phase);
  return html`<${Chip} look=${shown} text=${`${latest?.stopping && !latest.verdict ? "Stopping" : shown.word} · Run ${count(number)}`} />`;
}

/** What was decided, or how far it is. @param {{task: Task, run?: RunStatus | null, isLatest: boolean, done: number, total: number}} props */
function Verdict({ task, run, isLatest, done, total }) {
  const { stopping } = (isLatest && task.status?.run) || {};
  if (!run?.verdict) return html`<b>${count(done)}</b> of ${count(total)} done${stopping ? ` · starts no more: ${lower(spaced(stopping))}` : ""}`;
  if (run.verdict === "Complete") return total === 1 ? "The node succeeded." : `All ${count(total)} nodes succeeded.`;
  return html`${spaced(run.verdict)}: <b>${count(run.counts?.succeeded ?? 0)}</b> of ${count(total)} succeeded`;
}

/** @param {{tab: string, task: Task, number: number | null, total: number, executions: import("./load.js").Loaded<import("./load.js").Executions>, run?: RunStatus | null}} props */
function Targets({ tab, task, number, total, executions, run }) {
  const { ns, name } = here.value;
  const reason = task.status?.conditions?.find((one) => one.type === "Failed" && one.status === "True")?.reason;
  if (number === null) return html`<${Empty}>${withoutRun(task)}</${Empty}>`;
  if (!executions.data && executions.error) return html`<${Failure} error=${executions.error} what=${`The nodes of Run ${number} could not be read`} onRetry=${executions.again} />`;
  if (!executions.data) return html`<div aria-busy="true"></div>`;
  if (executions.data.items.length === 0) {
    return html`<${Empty}>${reason === "NoMatchingNodes" || total === 0 ? html`No node has these labels, so nothing ran. <code>${targetsText(task)}</code>` : "No node of this Run is known here."}</${Empty}>`;
  }
  if (tab === "timeline") return html`<${Timeline} uid=${task.metadata.uid} items=${executions.data.items} run=${run} ns=${ns} name=${name} number=${number} />`;
  return html`<${Nodes} items=${executions.data.items} cut=${executions.data.cut} ns=${ns} name=${name} number=${number} />`;
}

/** Why it has no Run. @param {Task} task */
function withoutRun(task) {
  const ready = task.status?.conditions?.find((one) => one.type === "Ready");
  if (ready?.reason === "WaitingForHistory") return `${ready.message}.`;
  if (ready?.reason === "AlreadyExecuted") return html`Nothing is run: ${ready.message}. <a class="link" href=${`history?task=${encodeURIComponent(task.metadata.name)}`}>Its earlier Runs are in History.</a>`;
  if (["CeilingExceeded", "AwaitingApproval", "CeilingsUnreadable"].includes(ready?.reason ?? "")) return `${ready?.message}.`;
  return task.status?.phase === "Suspended" ? "It is suspended: nothing is started." : "No Run has begun.";
}

/** @param {{items: Execution[], ns: string, name: string, number: number}} props */
function NodeGrid({ items, ns, name, number }) {
  const { state } = here.value.query;
  if (items.length > MOST_CELLS) return html`<${Legend} shares=${shares(items.map((one) => one.state))} value=${state ?? ""} />`;
  const shown = state ? items.filter((one) => one.state === state) : items;
  const label = `${plural(items.length, "node")}: ${shares(items.map((one) => one.state)).map((share) => `${share.count} ${lower(share.look.word)}`).join(", ")}`;
  return html`<${Grid} items=${shown} label=${label} width=${286} pitch=${pitchFor(shown.length, 286, 260, 13)} keyOf=${(/** @type {Execution} */ one) => one.node}
    nameOf=${(/** @type {Execution} */ one) => `${one.node}, ${stateText(one)}`} onOpen=${(/** @type {Execution} */ one) => go(executionPath(ns, name, number, one.node))}
    draw=${(/** @type {Execution} */ one, /** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ size) => html`<${Cell} state=${one.state} x=${x} y=${y} size=${size} />`} />`;
}

/** @param {{task: Task, number: number | null}} props */
function RunList({ task, number }) {
  const { namespace, name } = task.metadata;
  const { run, recentRuns = [] } = task.status ?? {};
  const all = run ? [run, ...recentRuns] : recentRuns;
  if (all.length === 0) return html`<p class="faint">None yet</p>`;
  return html`<ol class="run-list">${all.map((one) => {
    const how = look(one.verdict ?? "Running");
    const bad = (one.counts?.failed ?? 0) + (one.counts?.unreachable ?? 0);
    const good = one.counts?.succeeded ?? 0;
    return html`<li aria-current=${one.number === number ? "true" : undefined}><${Icon} name=${how.icon} cls=${`${how.tone} ${how.spin ? "spin" : ""}`} label=${how.word} /><a href=${runPath(namespace, name, one.number)}>Run ${count(one.number)}</a><span class="soft">${bad > 0 ? `${count(bad)} did not succeed` : `${count(good)} of ${count(sum(one.counts))}`}</span><span class="faint" title=${one.startedAt ? full(at(one.startedAt)) : undefined}>${when(at(one.startedAt), now.value)}</span></li>`;
  })}</ol>`;
}

/** @param {Task} task */
function targetsText(task) {
  const { all, nodeNames, nodeSelector, controlPlane } = task.spec.targets ?? {};
  const extra = controlPlane === "Include" ? ", control planes too" : "";
  if (all) return `all nodes${extra}`;
  if (nodeNames) return nodeNames.length > 3 ? plural(nodeNames.length, "node") : nodeNames.join(", ");
  return selectorText(nodeSelector) + extra;
}

/** @param {{task: Task, run?: LatestRun | null, isLatest: boolean}} props */
function RunFacts({ task, run, isLatest }) {
  const { targets = {}, run: what = {}, timeouts = {}, retry = {}, rollout = {}, suspend } = task.spec;
  const started = at(run?.startedAt);
  const clocks = ["run", "idle", "total", "unreachable"].filter((key) => timeouts[key]).map((key) => `${key} ${timeouts[key]}`);
  const limits = Object.entries(what.limits ?? {}).map(([key, value]) => `${key} ${value}`);
  return html`<${Facts} facts=${[
    ["Started", run && !Number.isNaN(started) ? html`<span title=${full(started)}>${when(started, now.value)}${run.trigger ? `, ${lower(spaced(run.trigger))}` : ""}</span>` : ""],
    ["Requested by", run && isLatest ? html`<span class="cut-text" title=${requesterTitle(run.requestedBy)}>${requestedBy(run.requestedBy)}</span>` : ""],
    ["Approved by", run?.approvedBy?.user ?? ""],
    ["Ceiling", run?.ceiling ? `${run.ceiling.name}${run.ceiling.maxConcurrent ? `, at most ${run.ceiling.maxConcurrent} at once` : ""}` : ""],
    ["Cancelled by", run?.cancelledBy?.user ?? (run?.stopping === "Cancelled" ? "unknown" : "")],
    ["Ended", run?.finishedAt ? html`<span title=${full(at(run.finishedAt))}>${when(at(run.finishedAt), now.value)}, ${ago(now.value - at(run.finishedAt))}</span>` : ""],
    ["Targets", html`<span class="tag cut-text">${targetsText(task)}</span>`],
    ["Except", targets.exclude?.nodeNames?.join(", ")],
    ["Rollout", rollout.maxConcurrent && rollout.maxConcurrent !== "100%" ? `${rollout.maxConcurrent} at once` : "all at once"],
    ["Clocks", clocks.join(" · ")],
    ["Retries", retry.limit ? `${retry.limit}, ${(retry.causes ?? []).map((/** @type {string} */ cause) => lower(spaced(cause))).join(", ")}` : "none"],
    ["Limits", limits.join(" · ")],
    ["Runs as", `${what.user ?? "the agent's user"} ${what.environment === "Host" ? "on the host" : "in the container"}`],
    ["Suspended", suspend ? "yes: nothing is started" : ""],
  ]} />`;
}

/** @param {{kind: "cancel" | "rerun" | "delete", task: Task, list: import("./states.js").Share[], onClose: () => void}} props */
function Question({ kind, task, list, onClose }) {
  const { namespace, name } = task.metadata;
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const number = task.status?.run?.number ?? 0;
  const running = list.filter((share) => share.name === "Running" || share.name === "Dispatched").reduce((all, share) => all + share.count, 0);
  const waiting = list.filter((share) => share.name === "Pending" || share.name === "WaitingForNode").reduce((all, share) => all + share.count, 0);
  const path = `tasks/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
  const act = async (/** @type {() => Promise<unknown>} */ request, /** @type {string} */ next) => {
    setBusy(true);
    try {
      await request();
      onClose();
      go(next);
    } catch (failed) {
      setError(failed instanceof Error ? failed.message : String(failed));
      setBusy(false);
    }
  };
  const grace = task.spec.timeouts?.grace ?? "10s";
  if (kind === "cancel") {
    return html`<${Confirm} title=${`Cancel Run ${count(number)}?`} text=${`The command ends on ${plural(running, "node")} (TERM, after ${grace} KILL)${waiting > 0 ? `; ${count(waiting)} more ${waiting === 1 ? "is" : "are"} not started` : ""}.`}
      keep="Keep running" act=${`Cancel Run ${count(number)}`} error=${error} busy=${busy} onClose=${onClose} onAct=${() => act(() => ask(`${path}/cancel${search({ run: number })}`, { method: "POST" }), here.peek().run ? runPath(namespace, name, number) : taskPath(namespace, name))} />`;
  }
  if (kind === "rerun") {
    const total = task.status?.run?.targetCount ?? 0;
    return html`<${Confirm} title=${`Run ${namespace}/${name} again?`} text=${`The same command runs on every node that its targets select now; Run ${count(number)} had ${plural(total, "node")}.${running + waiting > 0 ? " It begins when this Run has ended." : ""}`}
      keep="Close" act="Run again" error=${error} busy=${busy} onClose=${onClose} onAct=${() => act(() => ask(`${path}/rerun`, { method: "POST" }), taskPath(namespace, name))} />`;
  }
  return html`<${Confirm} title=${`Delete ${namespace}/${name}?`} text=${`${running > 0 ? `Its Run is cancelled on ${plural(running, "node")}. ` : ""}History is kept.`} keep="Keep it" act="Delete Task" error=${error} busy=${busy} onClose=${onClose}
    onAct=${() => act(() => ask(path, { method: "DELETE" }), "tasks")} />`;
}
