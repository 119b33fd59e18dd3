// A Run on one node: what happened, what it used, how it ended.

import { html } from "./html.js";
import { at, bytes, clockMs, count, full, lower, memory, span, spaced } from "./format.js";
import { hasEnded, isProblem, look, stateText } from "./states.js";
import { executionPath, lineText, logPath, runPath, taskPath } from "./address.js";
import { commandText } from "./draft.js";
import { leftText, limitText, userOf, whatHappened } from "./words.js";
import { ApiError, ask, search } from "./api.js";
import { Chip, Facts, Failure, Icon, Level, Note, Panel, State, tabKeys, useTitle } from "./parts.js";
import { go, here, withQuery } from "./route.js";
import { connection, now } from "./live.js";
import { useKeys } from "./keys.js";
import { took, useExecution, useExecutions, useLoad, useNode, useUid } from "./load.js";
import { PRESENCE, seen } from "./figures.js";
import { Row } from "./log-rows.js";

/** @typedef {import("./types.js").Execution} Execution */

const LAST_LINES = 11;

export function ExecutionPage() {
  const { ns, name, run, node, query } = here.value;
  const { task, uid, missing } = useUid(ns, name, query.uid);
  const number = run ?? 1;
  const isLatest = task?.status?.run?.number === number;
  const version = isLatest ? task?.metadata.resourceVersion : 0;
  const one = useExecution(uid, number, node, version);
  const active = one.data ? !hasEnded(one.data.state) : false;
  const all = useExecutions(uid, number, { active, version });
  useTitle(`${node}, Run ${number} of ${ns}/${name}`);
  const problems = (all.data?.items ?? []).filter((other) => isProblem(other.state));
  const at = problems.findIndex((other) => other.node === node);
  const step = (/** @type {number} */ by) => {
    if (problems.length === 0) return;
    const next = problems[at < 0 ? 0 : (at + by + problems.length) % problems.length];
    go(executionPath(ns, name, number, next.node));
  };
  const log = logPath(ns, name, number, { node, uid: query.uid });
  useKeys("Execution", [
    ...tabKeys,
    { key: "l", does: "Log", run: () => go(log) },
    { key: "e", does: "Next problem", run: () => step(1) },
    { key: "E", does: "Previous problem", run: () => step(-1) },
  ]);
  const head = html`<div class="crumbs"><a href="tasks">Tasks</a> / <a href=${`tasks?ns=${encodeURIComponent(ns)}`}>${ns}</a> / <a href=${taskPath(ns, name)}>${name}</a> / <a href=${runPath(ns, name, number)}>Run ${count(number)}</a> /</div><h1>${node}</h1>`;
  if (!one.data) {
    return html`<main id="main" tabindex="-1"><div class="head"><div class="head-line">${head}</div></div>
      ${missing ? html`<div class="empty"><h2>There is no Task ${ns}/${name}</h2></div>` : one.error ? html`<${Failure} error=${one.error} what=${one.error instanceof ApiError && one.error.status === 404 ? `Run ${number} had no ${node}` : "This Execution could not be read"} onRetry=${one.again}><a class="btn" href=${runPath(ns, name, number)}>All nodes of Run ${count(number)}</a></${Failure}>` : html`<div aria-busy="true"></div>`}</main>`;
  }
  const execution = one.data;
  const same = (all.data?.items ?? []).filter((other) => other.node !== node && other.state === execution.state && other.exitCode === execution.exitCode);
  // The spec may have been edited since: then it is not what ran.
  const spec = task && task.status?.run?.specHash === execution.specHash ? task.spec : {};
  const attempt = Number(query.attempt) || execution.attempt;
  const attempts = execution.attempts ?? [];
  const known = attempts.find((one_) => one_.attempt === attempt);
  /** @type {Execution} What is shown: this attempt. Before the first one, what it waits for. */
  const shown = known ? { ...execution, ...known } : execution;
  return html`<main id="main" tabindex="-1" class=${connection.value.lost ? "aging" : ""}>
    <div class="head"><div class="head-line">${head}<${Chip} look=${look(execution.state)} text=${stateText(execution)} /><span class="grow break"></span>
        ${problems.length > 1 && html`<button type="button" class="btn quiet square" aria-label="Previous problem" onClick=${() => step(-1)}><${Icon} name="up" /></button><button type="button" class="btn quiet square" aria-label="Next problem" onClick=${() => step(1)}><${Icon} name="down" /></button><span class="faint">${at >= 0 ? `${count(at + 1)} of ${count(problems.length)} problems` : `${count(problems.length)} problems`}</span>`}
        <a class="btn" href=${log}>Log</a><a class="btn" href=${`tasks/new?from=${encodeURIComponent(ns)}/${encodeURIComponent(name)}&node=${encodeURIComponent(node)}`}>Run here…</a></div>
      <p class="goal">${whatHappened(attempt === execution.attempt ? execution : shown, spec)} ${same.length > 0 && isProblem(execution.state) && html`<a href=${runPath(ns, name, number, { state: execution.state })}>${same.length === 1 ? "1 other node" : `${count(same.length)} other nodes`}</a> ended the same way.`}</p></div>
    ${execution.partial && html`<${Note}>What it used is missing: ${execution.partial.message}</${Note}>`}
    <nav class="tabs" aria-label="Attempts">${Array.from({ length: Math.min(20, Math.max(1, execution.attempt)) }, (_, index) => execution.attempt - index).map((n) => html`<${AttemptTab} n=${n} current=${n === attempt} latest=${n === execution.attempt} one=${attempts.find((other) => other.attempt === n) ?? (n === execution.attempt ? execution : undefined)} />`)}</nav>
    <div class="split"><div class="body">
      ${attempt !== execution.attempt && !known ? html`<p class="soft tools">This attempt was followed by another one. What it used is not known here.</p>` : html`<${Uses} execution=${shown} spec=${spec} />`}
      <${LastLines} execution=${shown} attempt=${attempt} uid=${String(uid)} log=${log} />
      <${Steps} execution=${execution} />
    </div><aside>
      ${(known || attempt === execution.attempt) && hasEnded(shown.state) && html`<${Ended} execution=${shown} />`}
      <${NodeNow} name=${node} />
      <${Panel} title="Command"><pre class="plain" tabindex="0">${commandOf(execution, spec)}</pre></${Panel}>
      <${Panel} title="As it ran"><${Facts} facts=${asItRan(shown, spec, attempt)} /></${Panel}>
    </aside></div></main>`;
}

/** @param {Execution} execution @param {Record<string, any>} spec */
function commandOf(execution, spec) {
  const script = spec.run?.script;
  if (script) return `${script.interpreter ?? "/bin/sh"}\n${script.text}`;
  return spec.run ? commandText(spec.run) : execution.command;
}

/** @param {Execution} execution @param {Record<string, any>} spec @param {number} attempt @returns {[string, any][]} */
function asItRan(execution, spec, attempt) {
  const { details } = execution;
  const digest = (/** @type {import("./types.js").StreamDetails | undefined} */ stream) => (stream?.sha256 ? html`<span class="mono" title=${stream.sha256}>sha256 ${stream.sha256.slice(0, 8)}</span>` : "");
  const limits = Object.entries(spec.run?.limits ?? {}).map(([key, value]) => `${key} ${limitText(String(value))}`);
  return [
    ["User", spec.run ? `${userOf(spec.run)}${details ? (details.environment === "Host" ? ", on the host" : ", in the container") : ""}` : ""],
    ["Directory", spec.run ? html`<span class="mono">${spec.run.workingDir ?? "/"}</span>` : ""],
    ["Limits", limits.join(", ")],
    ["Spec", html`<span class="mono" title=${execution.specHash}>${execution.specHash.slice(0, 12)}</span>`],
    ["stdout", digest(details?.stdout)],
    ["stderr", digest(details?.stderr)],
    ["Attempt", html`<span class="mono">${execution.taskUid.slice(0, 8)}/${execution.run}/${execution.node}/${attempt}</span>`],
  ];
}

/** @param {{execution: Execution, spec: Record<string, any>}} props */
function Uses({ execution, spec }) {
  const { details } = execution;
  const ran = took(execution, now.value);
  if (ran === null && !details) return null;
  const dropped = details ? details.stdout.dropped + details.stderr.dropped : 0;
  return html`<div class="panel"><dl class="uses">
    <div><dt>Took</dt><dd>${ran === null ? "–" : span(ran)} <small>${spec.timeouts?.run ? `of ${spec.timeouts.run} allowed` : ""}</small></dd></div>
    <div><dt>CPU</dt><dd>${details ? span(details.userMs + details.systemMs) : "–"} <small>${details ? `${span(details.userMs)} user, ${span(details.systemMs)} system` : ""}</small></dd></div>
    <div><dt>Largest process</dt><dd>${details ? memory(details.maxRss) : "–"} <small>${spec.run?.limits?.memory ? `of ${limitText(spec.run.limits.memory)}` : ""}</small></dd></div>
    <div><dt>Output</dt><dd>${details ? bytes(details.stdout.bytes + details.stderr.bytes) : "–"} <small class=${dropped > 0 ? "lost" : ""}>${dropped > 0 ? `${bytes(dropped)} dropped` : ""}</small></dd></div></dl></div>`;
}

/** @param {{execution: Execution, attempt: number, uid: string, log: string}} props */
function LastLines({ execution, attempt, uid, log }) {
  const begun = execution.attempt > 0;
  const path = `executions/${uid}/${execution.run}/${encodeURIComponent(execution.node)}/lines${search({ attempt, tail: LAST_LINES, count: 1000 })}`;
  const lines = useLoad(begun ? path : null, (abort) => ask(path, { signal: abort }), { version: execution.state, every: hasEnded(execution.state) ? 0 : 2000 });
  /** @type {import("./types.js").Lines | null} */
  const data = lines.data;
  const items = data?.lines ?? [];
  const marked = isProblem(execution.state) ? items.findLast((entry) => "line" in entry && entry.stream === "stderr" && entry.text.trim() !== "") : undefined;
  const title = hasEnded(execution.state) ? "How it ended" : "Its last lines";
  const side = data && items.length > 0 ? html`last ${count(items.length)} of ${count(data.totalLines)} lines · <a class="link" href=${log}>whole log</a>` : html`<a class="link" href=${log}>log</a>`;
  return html`<${Panel} title=${title} side=${side}>
    ${!begun ? html`<p class="soft">Waiting for its turn.</p>`
      : lines.error && !data ? html`<p class="soft">${String(/** @type {Error} */ (lines.error).message)}</p>`
      : data && items.length === 0 ? html`<p class="soft">${hasEnded(execution.state) ? "This command wrote nothing." : "Nothing was written yet."}</p>`
      : html`<div class="box"><div class="view" tabindex="0" role="region" aria-label="Last lines"><ol class="rows">${items.map((entry) => html`<${Row} key=${`${entry.position}`} entry=${entry} time="clock" start=${0} now=${0} marked=${entry === marked} link=${entry === marked ? `${log}&at=${lineText({ node: execution.node, attempt, position: entry.position })}` : undefined} />`)}</ol></div></div>`}</${Panel}>`;
}

/** @param {{n: number, current: boolean, latest: boolean, one?: {state: string, durationMs?: number | null}}} props */
function AttemptTab({ n, current, latest, one }) {
  const how = one && look(one.state);
  return html`<a href=${withQuery({ attempt: latest ? "" : n })} aria-current=${current ? "page" : undefined}>${how && html`<${Icon} name=${how.icon} cls=${how.tone} label=${how.word} />`}Attempt ${Math.max(1, n)}${one?.durationMs != null && html`<span class="n">${span(one.durationMs)}</span>`}</a>`;
}

/** When each attempt began and ended. @param {{execution: Execution}} props */
function Steps({ execution }) {
  /** @type {[number, string, string][]} */
  const steps = [];
  let before = NaN;
  for (const one of execution.attempts ?? (execution.attempt > 0 ? [execution] : [])) {
    const [started, ended] = [at(one.startedAt), at(one.endedAt)];
    if (!Number.isNaN(started)) steps.push([started, `Attempt ${count(one.attempt)} started`, Number.isNaN(before) ? "" : `after ${span(started - before)}`]);
    if (!Number.isNaN(ended)) steps.push([ended, `Attempt ${count(one.attempt)}: ${lower(stateText(one))}`, one.durationMs != null ? span(one.durationMs) : ""]);
    before = ended;
  }
  if (steps.length === 0) return null;
  return html`<${Panel} title="What happened" side="by the clock of the node"><ol class="steps">${steps.map(([time, text, took_]) => html`<li><time class="mono faint" title=${full(time)}>${clockMs(time)}</time><span>${text}</span><span class="faint">${took_}</span></li>`)}</ol></${Panel}>`;
}

/** @param {{execution: Execution}} props */
function Ended({ execution }) {
  const exit = execution.details?.exit;
  const signal = exit?.signalName ?? (exit?.signal ? `signal ${exit.signal}` : execution.details?.signal ? `signal ${execution.details.signal}` : "none");
  return html`<${Panel} title="Ended" side=${html`<${State} look=${look(execution.state)} title=${execution.state} />`}><${Facts} facts=${[
    ["Exit code", execution.exitCode ?? exit?.code ?? "none"],
    ["Signal", execution.details ? signal : ""],
    ["Reason", execution.details?.reason ? html`<span title=${execution.details.reason}>${spaced(execution.details.reason)}</span>` : ""],
    ["Clock", exit?.clock ? `${exit.clock.field}, after ${span(exit.clock.afterMs)}` : ""],
    ["Left behind", execution.details && exit ? leftText(exit.left) : ""],
    ["Output held", exit?.outputHeldMs != null ? `open for ${span(exit.outputHeldMs)} after the command; what came later is lost` : ""],
    ["Masked", exit?.masked ? `a secret in the output, ${exit.masked === 1 ? "once" : `${exit.masked} times`}` : ""],
    ["Held up", execution.details ? `${span(execution.details.blockedMs)} on a full spool` : ""],
    ["Result from", execution.source === "Agent" ? "the agent" : "the operator, without a report"],
  ]} /></${Panel}>`;
}

/** @param {{name: string}} props */
function NodeNow({ name }) {
  const loaded = useNode(name);
  if (!loaded.data) return loaded.error instanceof ApiError && loaded.error.status === 404 ? html`<${Panel} title="Node now"><p class="soft">It is not in the cluster any more.</p></${Panel}>` : null;
  const row = seen(loaded.data, now.value, null, loaded.data.asked);
  const { tone, icon } = PRESENCE[row.presence];
  return html`<${Panel} title="Node now" side=${html`<span class=${`state ${tone}`}><${Icon} name=${icon} />${row.presence}</span>`}><${Facts} facts=${[
    ["CPU", html`<${Level} share=${row.figures.cpu} />`],
    ["Memory", html`<${Level} share=${row.figures.memory} />`],
    [row.disk ? `Disk ${row.disk.mount}` : "Disk", html`<${Level} share=${row.figures.disk} />`],
  ]} /></${Panel}>`;
}
