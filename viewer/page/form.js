// The form: fields make a Task, the YAML shows it, and each problem stands beside its field.

import { useEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { plural } from "./format.js";
import { taskPath } from "./address.js";
import { blank, get, ofTask, problemsAt, problemsOf, runsAnew, set } from "./draft.js";
import { read, write, YamlError } from "./yaml.js";
import { targeted, isControlPlane } from "./selector.js";
import { usefulLabels } from "./figures.js";
import { ApiError, ask, search } from "./api.js";
import { hasEnded } from "./states.js";
import { Confirm, Failure, Icon, Note, copy, useTitle } from "./parts.js";
import { go, here } from "./route.js";
import { findTask, synced } from "./live.js";
import { freeName } from "./names.js";
import { useKeys } from "./keys.js";
import { useExecutions, useNodes } from "./load.js";
import { YamlText } from "./task-tabs.js";
import { Fields } from "./form-fields.js";
import { userOf } from "./words.js";

/** @typedef {import("./draft.js").Draft} Draft */
/** @typedef {import("./draft.js").Problem} Problem */

const KEY = "draft";

/** The server is asked so long after the last key. */
const CHECK_AFTER_MS = 400;

/** More nodes than this, as root on the host, ask twice. */
const MANY = 50;

/** A draft is in the tab, never in the address: it may hold what others must not read. @param {string} where @returns {Draft | null} */
function stored(where) {
  try {
    const found = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
    return found?.where === where ? found.draft : null;
  } catch {
    return null;
  }
}

/** @param {string} where @param {Draft | null} draft */
function store(where, draft) {
  try {
    if (draft) sessionStorage.setItem(KEY, JSON.stringify({ where, draft }));
    else sessionStorage.removeItem(KEY);
  } catch {
    // Without storage a reload begins anew.
  }
}

export function FormPage() {
  const { from = "", node = "", failed = "" } = here.value.query;
  const [ns, name] = from.split("/");
  const task = from ? findTask(ns ?? "", name ?? "") : undefined;
  const run = Number(failed) || 0;
  const executions = useExecutions(run ? task?.metadata.uid : undefined, run, { active: false, version: 0 });
  const isNew = !from || node !== "" || run > 0;
  useTitle(isNew ? "New Task" : `Edit ${from}`);
  if (run && executions.error && !executions.data) return html`<main id="main" tabindex="-1"><${Failure} error=${executions.error} what=${`The nodes of Run ${run} could not be read`} onRetry=${executions.again} /></main>`;
  if (from && ((!task && !synced.value) || (task && run && !executions.data))) return html`<main id="main" tabindex="-1" aria-busy="true"></main>`;
  const only = task && run ? failedOf(run, executions.data?.items ?? [], task) : node ? { nodes: [node], suffix: `on-${node}`, note: "" } : null;
  return html`<${Editor} key=${`${from} ${node} ${failed}`} where=${`${from} ${node} ${failed}`} task=${task} only=${only} />`;
}

/** A Task on these nodes alone, as another one. @typedef {{nodes: string[], suffix: string, note: string}} Only */

/** The nodes of a Run that did not succeed, and what is to be known about them. @param {number} run @param {import("./types.js").Execution[]} items @param {import("./types.js").Task} task @returns {Only} */
function failedOf(run, items, task) {
  const failed = items.filter((one) => hasEnded(one.state) && one.state !== "Succeeded");
  const unknown = failed.filter((one) => one.state === "Lost" || one.state === "CancelFailed").length;
  const edited = failed.some((one) => one.specHash !== task.status?.run?.specHash);
  const note = `A new Task with the spec of ${task.metadata.namespace}/${task.metadata.name}, on the ${plural(failed.length, "node")} that did not succeed in Run ${run}.${
    edited ? " The spec was edited after that Run; here it is as it is now." : ""}${
    unknown > 0 ? ` On ${plural(unknown, "node")} it is not known whether the command has ended.` : ""}`;
  return { nodes: failed.map((one) => one.node), suffix: `rerun-${run}`, note };
}

/** @param {import("./types.js").Task | undefined} task @param {Only | null} only @returns {Draft} */
function start(task, only) {
  const draft = task ? ofTask(task) : blank();
  if (!only) return draft;
  const name = task ? freeName(task.metadata.name, only.suffix, (one) => findTask(task.metadata.namespace, one) !== undefined) : "";
  return set(set(set(set(draft, "spec.targets", { nodeNames: only.nodes }), "spec.suspend", undefined), "spec.rerunToken", undefined), "metadata.name", name);
}

/** @param {{where: string, task?: import("./types.js").Task, only: Only | null}} props */
function Editor({ where, task, only }) {
  const [draft, setDraft] = useState(() => stored(where) ?? start(task, only));
  // Untouched fields of a new form show no errors.
  const [touched, setTouched] = useState(/** @type {string[] | "all"} */ (task ? "all" : []));
  const [problems, setProblems] = useState(/** @type {Problem[]} */ ([]));
  const [said, setSaid] = useState("");
  const [text, setText] = useState(/** @type {string | null} */ (null));
  const [textWrong, setTextWrong] = useState("");
  const [local, setLocal] = useState(/** @type {Record<string, string>} */ ({}));
  const [asking, setAsking] = useState(false);
  const [busy, setBusy] = useState(false);
  const nodes = useNodes().data?.items ?? null;
  const form = useRef(/** @type {HTMLElement | null} */ (null));
  useKeys("Form", []);
  useEffect(() => store(where, draft), [draft]);

  const change = (/** @type {Draft} */ next, /** @type {string} */ path = "") => {
    setDraft(next);
    if (path) setTouched((all) => (all === "all" || all.includes(path) ? all : [...all, path]));
    setSaid("");
    // What the server said of this field was about another value.
    setProblems((list) => (path ? list.filter((problem) => !problemsAt([problem], path).length) : []));
    if (text !== null) setText(write(next));
  };
  const edit = (/** @type {string} */ value) => {
    setText(value);
    try {
      const found = read(value);
      if (typeof found !== "object" || found === null || Array.isArray(found)) throw new YamlError(1, "a Task begins with keys");
      setTextWrong("");
      setDraft(/** @type {Draft} */ (found));
      setProblems([]);
      setTouched("all");
    } catch (error) {
      setTextWrong(error instanceof Error ? error.message : String(error));
    }
  };
  /** What a field itself cannot read, such as an open quote. @param {string} path @param {string | null} wrong */
  const note = (path, wrong) => setLocal((all) => (wrong ? { ...all, [path]: wrong } : Object.fromEntries(Object.entries(all).filter(([key]) => key !== path))));

  const existing = task && !only && draft.metadata?.name === task.metadata.name && draft.metadata?.namespace === task.metadata.namespace ? task : undefined;
  const anew = !existing || runsAnew(draft) !== runsAnew(ofTask(existing));
  const suspended = get(draft, "spec.suspend") === true;
  const chosen = useMemo(() => (nodes ? targeted(nodes, get(draft, "spec.targets") ?? {}) : []), [nodes, draft]);
  const targets = get(draft, "spec.targets") ?? {};
  const matched = targets.nodeNames ? new Set(targets.nodeNames).size : chosen.length;
  const isRoot = ["root", "0", 0].includes(get(draft, "spec.run.user")) || get(draft, "spec.run.user") === undefined;
  const onHost = get(draft, "spec.run.environment") === "Host";
  const danger = anew && !suspended && matched > 1 && (targets.all === true || chosen.some(isControlPlane) || (isRoot && onHost && matched > MANY));
  const shown = touched === "all" ? problems : problems.filter(({ field }) => touched.some((path) => problemsAt([{ field, value: "", allowed: "" }], path).length > 0 || path.startsWith(`${field}.`)));
  const count = shown.length + Object.keys(local).length + (textWrong ? 1 : 0);
  const act = existing ? (anew && !suspended ? "Save and run" : "Save") : suspended ? "Create" : "Create and run";

  /** @param {{dryRun?: "All"}} [query] @param {AbortSignal} [signal] */
  const send = (query = {}, signal = undefined) => {
    const { name = "", namespace = "default" } = draft.metadata ?? {};
    return existing ? ask(`tasks/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}${search(query)}`, { method: "PUT", body: draft, signal }) : ask(`tasks${search(query)}`, { method: "POST", body: draft, signal });
  };
  // The server checks what is written, and stores nothing.
  const unread = textWrong !== "" || Object.keys(local).length > 0;
  useEffect(() => {
    if (unread || busy || touched.length === 0) return undefined;
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      try {
        await send({ dryRun: "All" }, abort.signal);
        if (!abort.signal.aborted) setProblems([]);
      } catch (error) {
        // Without an answer nothing is said: saving will tell.
        if (!abort.signal.aborted && error instanceof ApiError && error.status >= 400 && error.status < 500) setProblems(problemsOf(error.body));
      }
    }, CHECK_AFTER_MS);
    return () => (clearTimeout(timer), abort.abort());
  }, [draft, unread, busy, touched.length === 0]);

  const save = async () => {
    setAsking(false);
    setBusy(true);
    setSaid("");
    setTouched("all");
    try {
      const saved = await send();
      store(where, null);
      go(taskPath(saved.metadata.namespace, saved.metadata.name), { replace: true });
    } catch (error) {
      const body = error instanceof ApiError ? error.body : { reason: "", message: String(error) };
      const found = problemsOf(body);
      setProblems(found);
      setSaid(found.length > 0 && found.every((problem) => form.current?.querySelector(`[data-path="${CSS.escape(shownPath(problem.field))}"]`)) ? "" : body.message);
      setBusy(false);
    }
  };
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (danger) setAsking(true);
    else void save();
  };
  const first = () => /** @type {HTMLElement | null | undefined} */ (form.current?.querySelector("[aria-invalid=true], [aria-invalid=true] input"))?.focus();

  return html`<main id="main" tabindex="-1"><div class="form" ref=${form}>
    <form id="task-form" onSubmit=${submit}>
      <div class="head-line"><div class="crumbs"><a href="tasks">Tasks</a> /</div><h1>${existing ? `Edit ${existing.metadata.namespace}/${existing.metadata.name}` : "New Task"}</h1><span class="grow"></span>
        <button type="button" class="btn quiet" onClick=${() => (change(start(task, only)), setText(null), setTextWrong(""), setLocal({}))}>Begin anew</button></div>
      ${only?.note && html`<${Note} tone="off" icon="plus">${only.note}</${Note}>`}
      <${Fields} draft=${draft} change=${change} problems=${shown} local=${local} note=${note} nodes=${nodes ?? []} fixed=${Boolean(existing)} />
    </form>
    <aside aria-label="What this Task does">
      <${Preview} targets=${targets} nodes=${nodes} chosen=${chosen} matched=${matched} />
      <div><h2>YAML <span class="grow"></span><span class="faint" role="status">${said === "Copied." ? said : ""}</span><button type="button" class="btn quiet" onClick=${() => copy(text ?? write(draft), setSaid)}>Copy</button><button type="button" class="btn quiet" aria-pressed=${String(text !== null)} onClick=${() => (setText(text === null ? write(draft) : null), setTextWrong(""))}>${text === null ? "Edit" : "Done"}</button></h2></div>
      ${text === null ? html`<${YamlText} value=${draft} wrong=${(/** @type {string} */ path, /** @type {boolean} */ whole) => (whole ? problemsAt(shown, path) : shown.filter(({ field }) => field === path)).length > 0} />`
        : html`<label class="yaml-edit"><span class="sr">Task as YAML</span><textarea class="code" spellcheck=${false} value=${text} aria-invalid=${textWrong ? "true" : undefined} onInput=${(/** @type {any} */ event) => edit(event.currentTarget.value)}></textarea>${textWrong && html`<span class="error" role="alert"><${Icon} name="failed" />${textWrong}</span>`}</label>`}
      ${said && said !== "Copied." && html`<p class="bad said" role="alert">${said}</p>`}
      <div class="actions"><span class="soft grow"><${Sentence} draft=${draft} matched=${matched} chosen=${chosen} anew=${anew && !suspended} /></span>
        ${count > 0 && html`<button type="button" class="btn quiet bad" onClick=${first}><${Icon} name="failed" />${plural(count, "problem")}</button>`}
        <button class="btn solid" type="submit" form="task-form" disabled=${busy || unread}>${act}</button></div>
    </aside></div>
    ${asking && html`<${Sure} matched=${matched} draft=${draft} act=${act} onClose=${() => setAsking(false)} onAct=${save} />`}</main>`;
}

/** Problems in a list are shown at the list. @param {string} path */
const shownPath = (path) => path.replace(/\[\d+\].*$/, "");

/** @param {{targets: import("./selector.js").Targets, nodes: import("./types.js").Node[] | null, chosen: import("./types.js").Node[], matched: number}} props */
function Preview({ targets, nodes, chosen, matched }) {
  if (!nodes) return html`<div><h2>Nodes</h2></div>`;
  const unknown = (targets.nodeNames ?? []).filter((name) => !nodes.some((node) => node.name === name));
  const away = chosen.filter((node) => !node.reachable).length;
  const key = usefulLabels(nodes.map((node) => /** @type {any} */ ({ labels: node.labels ?? {} })))[0];
  /** @type {Map<string, number>} */
  const counts = new Map();
  if (key) for (const node of chosen) counts.set(node.labels?.[key] ?? "none", (counts.get(node.labels?.[key] ?? "none") ?? 0) + 1);
  return html`<div><h2>${matched === 0 ? "No node matches" : `${plural(matched, "node")} ${matched === 1 ? "matches" : "match"}`}</h2>
    <div class="legend">${[...counts].sort((a, b) => b[1] - a[1]).slice(0, 6).map(([value, n]) => html`<span><b>${n}</b> ${value}</span>`)}
      ${away > 0 && html`<span class="lost"><${Icon} name="gone" />${away} unreachable now</span>`}${unknown.length > 0 && html`<span class="late"><${Icon} name="late" />${unknown.length === 1 ? `${unknown[0]} is not there` : `${unknown.length} are not there`}</span>`}
      ${matched > 0 && matched <= 3 && chosen.map((node) => html`<span class="mono">${node.name}</span>`)}</div></div>`;
}

/** What is dangerous, in one sentence. @param {{draft: Draft, matched: number, chosen: import("./types.js").Node[], anew: boolean}} props */
function Sentence({ draft, matched, chosen, anew }) {
  if (!anew) return get(draft, "spec.suspend") === true ? "Nothing is started: it is held back." : "Nothing runs anew.";
  const user = userOf(get(draft, "spec.run"));
  const where = get(draft, "spec.run.environment") === "Host" ? "on the host" : "in the container";
  return html`Runs as <b>${user} ${where}</b> of <b>${plural(matched, "node")}</b>${chosen.some(isControlPlane) ? ", control planes among them" : ""}.`;
}

/** @param {{matched: number, draft: Draft, act: string, onClose: () => void, onAct: () => void}} props */
function Sure({ matched, draft, act, onClose, onAct }) {
  const [typed, setTyped] = useState("");
  const user = userOf(get(draft, "spec.run"));
  const where = get(draft, "spec.run.environment") === "Host" ? "on the host" : "in the container";
  return html`<${Confirm} title=${`${act} on ${plural(matched, "node")}?`} text=${`This runs as ${user} ${where} of ${matched} nodes. Type ${matched} to go on.`} keep="Close" act=${act} busy=${typed.trim() !== String(matched)} onClose=${onClose} onAct=${onAct}>
    <label class="field"><span class="sr">Number of nodes</span><input inputmode="numeric" value=${typed} onInput=${(/** @type {any} */ event) => setTyped(event.currentTarget.value)} /></label></${Confirm}>`;
}
