// The form: fields make a Task, the YAML shows it, and each problem stands beside its field.

import { useEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { plural } from "./format.js";
import { taskPath } from "./address.js";
import { blank, get, ofTask, problemsAt, problemsOf, runsAnew, set } from "./draft.js";
import { read, write, YamlError } from "./yaml.js";
import { targeted, isControlPlane } from "./selector.js";
import { usefulLabels } from "./figures.js";
import { ApiError, ask } from "./api.js";
import { Confirm, Icon, copy, useTitle } from "./parts.js";
import { go, here } from "./route.js";
import { findTask, synced } from "./live.js";
import { useKeys } from "./keys.js";
import { useNodes } from "./load.js";
import { YamlText } from "./task-tabs.js";
import { Fields } from "./form-fields.js";

/** @typedef {import("./draft.js").Draft} Draft */
/** @typedef {import("./draft.js").Problem} Problem */

const KEY = "draft";

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
  const { from = "", node = "" } = here.value.query;
  const [ns, name] = from.split("/");
  const task = from ? findTask(ns ?? "", name ?? "") : undefined;
  useTitle(from ? `Edit ${from}` : "New Task");
  if (from && !task && !synced.value) return html`<main id="main" tabindex="-1" aria-busy="true"></main>`;
  return html`<${Editor} key=${`${from} ${node}`} where=${`${from} ${node}`} task=${task} node=${node} />`;
}

/** @param {import("./types.js").Task | undefined} task @param {string} node @returns {Draft} */
function start(task, node) {
  const draft = task ? ofTask(task) : blank();
  return node ? set(set(draft, "spec.targets", { nodeNames: [node] }), "metadata.name", task ? `${task.metadata.name}-on-${node}`.slice(0, 63).replace(/[.-]+$/, "") : "") : draft;
}

/** @param {{where: string, task?: import("./types.js").Task, node: string}} props */
function Editor({ where, task, node }) {
  const [draft, setDraft] = useState(() => stored(where) ?? start(task, node));
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
    } catch (error) {
      setTextWrong(error instanceof Error ? error.message : String(error));
    }
  };
  /** What a field itself cannot read, such as an open quote. @param {string} path @param {string | null} wrong */
  const note = (path, wrong) => setLocal((all) => (wrong ? { ...all, [path]: wrong } : Object.fromEntries(Object.entries(all).filter(([key]) => key !== path))));

  const existing = task && !node && draft.metadata?.name === task.metadata.name && draft.metadata?.namespace === task.metadata.namespace ? task : undefined;
  const anew = !existing || runsAnew(draft) !== runsAnew(ofTask(existing));
  const suspended = get(draft, "spec.suspend") === true;
  const chosen = useMemo(() => (nodes ? targeted(nodes, get(draft, "spec.targets") ?? {}) : []), [nodes, draft]);
  const targets = get(draft, "spec.targets") ?? {};
  const matched = targets.nodeNames ? new Set(targets.nodeNames).size : chosen.length;
  const isRoot = ["root", "0", 0].includes(get(draft, "spec.run.user")) || get(draft, "spec.run.user") === undefined;
  const onHost = get(draft, "spec.run.environment") === "Host";
  const danger = anew && !suspended && matched > 1 && (targets.all === true || chosen.some(isControlPlane) || (isRoot && onHost && matched > MANY));
  const count = problems.length + Object.keys(local).length + (textWrong ? 1 : 0);
  const act = existing ? (anew && !suspended ? "Save and run" : "Save") : suspended ? "Create" : "Create and run";

  const save = async () => {
    setAsking(false);
    setBusy(true);
    setSaid("");
    const { name = "", namespace = "default" } = draft.metadata ?? {};
    try {
      const saved = await (existing
        ? ask(`tasks/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`, { method: "PUT", body: draft })
        : ask("tasks", { method: "POST", body: draft }));
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
        <button type="button" class="btn quiet" onClick=${() => (change(start(task, node)), setText(null), setTextWrong(""), setLocal({}))}>Begin anew</button></div>
      <${Fields} draft=${draft} change=${change} problems=${problems} local=${local} note=${note} nodes=${nodes ?? []} fixed=${Boolean(existing)} />
    </form>
    <aside aria-label="What this Task does">
      <${Preview} targets=${targets} nodes=${nodes} chosen=${chosen} matched=${matched} />
      <div><h2>YAML <span class="grow"></span><span class="faint" role="status">${said === "Copied." ? said : ""}</span><button type="button" class="btn quiet" onClick=${() => copy(text ?? write(draft), setSaid)}>Copy</button><button type="button" class="btn quiet" aria-pressed=${String(text !== null)} onClick=${() => (setText(text === null ? write(draft) : null), setTextWrong(""))}>${text === null ? "Edit" : "Done"}</button></h2></div>
      ${text === null ? html`<${YamlText} value=${draft} wrong=${(/** @type {string} */ path) => problems.some((problem) => problem.field === path)} />`
        : html`<label class="yaml-edit"><span class="sr">Task as YAML</span><textarea class="code" spellcheck=${false} value=${text} aria-invalid=${textWrong ? "true" : undefined} onInput=${(/** @type {any} */ event) => edit(event.currentTarget.value)}></textarea>${textWrong && html`<span class="error" role="alert"><${Icon} name="failed" />${textWrong}</span>`}</label>`}
      ${said && said !== "Copied." && html`<p class="bad said" role="alert">${said}</p>`}
      <div class="actions"><span class="soft grow"><${Sentence} draft=${draft} matched=${matched} chosen=${chosen} anew=${anew && !suspended} /></span>
        ${count > 0 && html`<button type="button" class="btn quiet bad" onClick=${first}><${Icon} name="failed" />${plural(count, "problem")}</button>`}
        <button class="btn solid" type="submit" form="task-form" disabled=${busy || textWrong !== "" || Object.keys(local).length > 0}>${act}</button></div>
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
  const user = get(draft, "spec.run.user") ?? "the agent's user";
  const where = get(draft, "spec.run.environment") === "Host" ? "on the host" : "in the container";
  return html`Runs as <b>${user} ${where}</b> of <b>${plural(matched, "node")}</b>${chosen.some(isControlPlane) ? ", control planes among them" : ""}.`;
}

/** @param {{matched: number, draft: Draft, act: string, onClose: () => void, onAct: () => void}} props */
function Sure({ matched, draft, act, onClose, onAct }) {
  const [typed, setTyped] = useState("");
  const user = get(draft, "spec.run.user") ?? "the agent's user";
  const where = get(draft, "spec.run.environment") === "Host" ? "on the host" : "in the container";
  return html`<${Confirm} title=${`${act} on ${plural(matched, "node")}?`} text=${`This runs as ${user} ${where} of ${matched} nodes. Type ${matched} to go on.`} keep="Close" act=${act} busy=${typed.trim() !== String(matched)} onClose=${onClose} onAct=${onAct}>
    <label class="field"><span class="sr">Number of nodes</span><input inputmode="numeric" value=${typed} onInput=${(/** @type {any} */ event) => setTyped(event.currentTarget.value)} /></label></${Confirm}>`;
}
