// The fields of the form. Each is a view of one path of the draft, and shows what the server said of it.

import { useEffect, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { join, split } from "./argv.js";
import { environment, environmentText, get, numberOrText, problemsAt, problemText, set } from "./draft.js";
import { fold, unfold } from "./names.js";
import { parseSelector, selectorText } from "./selector.js";
import { Icon } from "./parts.js";

/** @typedef {import("./draft.js").Draft} Draft */
/** @typedef {{draft: Draft, change: (draft: Draft, path?: string) => void, problems: import("./draft.js").Problem[], local: Record<string, string>, note: (path: string, wrong: string | null) => void, nodes: import("./types.js").Node[], fixed: boolean}} Form */

/** @param {Form} form @param {string} path @returns {string[]} */
function wrongs({ problems, local }, path) {
  return [...(local[path] ? [local[path]] : []), ...problemsAt(problems, path).map(problemText)];
}

/** @param {{id: string, texts: string[]}} props */
const Wrong = ({ id, texts }) => (texts.length > 0 ? html`<span class="error" id=${id} role="alert"><${Icon} name="failed" />${texts.join(" ")}</span>` : null);

/**
 * A field of text. What people write stays as it is while it is read into the draft.
 *
 * @param {{form: Form, path: string, label: string, cls?: string, help?: string, placeholder?: string, mono?: boolean, rows?: number, disabled?: boolean, hidden?: boolean,
 *   show?: (value: any) => string, take?: (text: string) => {value: unknown, wrong?: string | null}}} props
 */
function Text({ form, path, label, cls = "w-s", help, placeholder, mono, rows, disabled, hidden, show = (value) => (value === undefined || value === null ? "" : String(value)), take = (text) => ({ value: text === "" ? undefined : text }) }) {
  const value = get(form.draft, path);
  const [text, setText] = useState(show(value));
  // Another writer (the YAML, "Begin anew"): what is shown means something else than what is there.
  useEffect(() => {
    if (JSON.stringify(take(text).value ?? null) !== JSON.stringify(value ?? null)) {
      setText(show(value));
      form.note(path, null);
    }
  }, [JSON.stringify(value)]);
  const onInput = (/** @type {any} */ event) => {
    const written = event.currentTarget.value;
    setText(written);
    const { value: found, wrong = null } = take(written);
    form.note(path, wrong);
    if (!wrong) form.change(set(form.draft, path, found), path);
  };
  const texts = wrongs(form, path);
  const id = `e-${path.replace(/\W/g, "-")}`;
  const attributes = { "data-path": path, value: text, placeholder, spellcheck: false, autocomplete: "off", disabled, "aria-invalid": texts.length > 0 ? "true" : undefined, "aria-describedby": texts.length > 0 ? id : help ? `${id}-help` : undefined, onInput };
  return html`<label class=${cls}>${hidden ? html`<span class="sr">${label}</span>` : label}${rows ? html`<textarea class="code" rows=${rows} ...${attributes}></textarea>` : html`<span class=${`field ${mono ? "re" : ""}`}><input ...${attributes} /></span>`}
    <${Wrong} id=${id} texts=${texts} />${help && texts.length === 0 && html`<span class="help" id=${`${id}-help`}>${help}</span>`}</label>`;
}

/** @param {{label: string, value: string, options: [string, string][], onPick: (value: string) => void}} props */
const Choice = ({ label, value, options, onPick }) =>
  html`<span class="seg" role="group" aria-label=${label}>${options.map(([key, text]) => html`<button type="button" aria-pressed=${String(key === value)} onClick=${() => onPick(key)}>${text}</button>`)}</span>`;

/** @param {{title: string, small?: string, children?: any}} props */
const Group = ({ title, small, children }) => html`<fieldset><legend>${title}${small && html` <small>${small}</small>`}</legend><div class="in">${children}</div></fieldset>`;

/** @param {{children?: any, open?: boolean}} props */
const More = ({ children, open = false }) => html`<details class="more-fields" open=${open}><summary>More</summary><div class="in">${children}</div></details>`;

const list = { show: (/** @type {string[] | undefined} */ value) => fold(value ?? []), take: (/** @type {string} */ text) => ({ value: text.trim() === "" ? undefined : unfold(text) }) };
const number = { take: (/** @type {string} */ text) => ({ value: numberOrText(text.trim()) }) };

/** @param {Form} form */
export function Fields(form) {
  const { draft, change, problems } = form;
  const run = get(draft, "spec.run") ?? {};
  const problemIn = (/** @type {string[]} */ paths) => paths.some((path) => problemsAt(problems, path).length > 0);
  const rest = problems.filter(({ field }) => field !== "spec.targets" && !SHOWN.some((path) => problemsAt([{ field, value: "", allowed: "" }], path).length > 0));
  return html`
    <${Group} title="Name"><div class="pair"><${Text} form=${form} path="metadata.name" label="Name" cls="w-m" disabled=${form.fixed} /><${Text} form=${form} path="metadata.namespace" label="Namespace" disabled=${form.fixed} /></div></${Group}>
    <${Targets} form=${form} />
    <${Group} title="Command" small="what runs">
      <div class="pair"><${Choice} label="Kind" value=${run.script ? "script" : "command"} options=${[["command", "Command"], ["script", "Script"]]} onPick=${(/** @type {string} */ kind) => change(set(set(draft, "spec.run.script", kind === "script" ? run.script ?? { text: (run.command ?? []).length > 0 ? `${join(run.command)}\n` : "" } : undefined), "spec.run.command", kind === "script" ? undefined : run.command ?? []), "spec.run")} />
        ${run.script && html`<${Text} form=${form} path="spec.run.script.interpreter" label="Run by" hidden mono cls="" placeholder="/bin/sh" />`}</div>
      ${run.script ? html`<${Text} form=${form} path="spec.run.script.text" label="Script" hidden rows=${6} cls="" take=${(/** @type {string} */ text) => ({ value: text })} />`
        : html`<${Text} form=${form} path="spec.run.command" label="Command" hidden mono cls="" rows=${(run.command ?? []).some((/** @type {string} */ word) => String(word).includes("\n")) ? 6 : undefined} placeholder="df -h" help="a program and its arguments, without a shell" show=${(/** @type {string[]} */ value) => join(value ?? [])} take=${(/** @type {string} */ text) => { const found = split(text); return { value: found.words, wrong: found.wrong }; }} />`}
      <div class="pair"><div class="low"><${Choice} label="Where" value=${run.environment ?? "Container"} options=${[["Container", "In the container"], ["Host", "On the host"]]} onPick=${(/** @type {string} */ value) => change(set(draft, "spec.run.environment", value === "Host" ? "Host" : undefined), "spec.run.environment")} /></div>
        <${Text} form=${form} path="spec.run.user" label="User" placeholder="the agent's" /><${Text} form=${form} path="spec.run.limits.memory" label="Memory" placeholder="no limit" /><${Text} form=${form} path="spec.run.limits.pids" label="Processes" placeholder="no limit" ...${number} /></div>
      <${More} open=${problemIn(["spec.run.limits.cpu", "spec.run.workingDir", "spec.run.env", "spec.run.stdin", "spec.run.successExitCodes", "spec.run.output"])}>
        <div class="pair"><${Text} form=${form} path="spec.run.limits.cpu" label="CPU" placeholder="no limit" help="such as 500m" ...${number} /><${Text} form=${form} path="spec.run.workingDir" label="Directory" cls="w-m" placeholder="/" /><${Text} form=${form} path="spec.run.output.limit" label="Output kept" placeholder="1Gi" />
          <${Text} form=${form} path="spec.run.successExitCodes" label="Success codes" placeholder="0" show=${(/** @type {number[] | undefined} */ value) => (value ?? []).join(", ")} take=${(/** @type {string} */ text) => ({ value: text.trim() === "" ? undefined : text.split(/[\s,]+/).filter(Boolean).map((one) => numberOrText(one)) })} /></div>
        <${Text} form=${form} path="spec.run.env" label="Environment" rows=${2} cls="" placeholder="LANG=C" help="NAME=value, one a line; NAME=secretKeyRef:SECRET/KEY for the value of a Secret" show=${environmentText} take=${(/** @type {string} */ text) => ({ value: environment(text) })} />
        <${Text} form=${form} path="spec.run.stdin" label="Standard input" rows=${2} cls="" /></${More}>
    </${Group}>
    <${Group} title="Clocks" small="empty: as long as it likes">
      <div class="pair"><${Text} form=${form} path="spec.timeouts.run" label="Run" cls="w-m" placeholder="such as 5m" /><${Text} form=${form} path="spec.timeouts.idle" label="No output for" /><${Text} form=${form} path="spec.timeouts.total" label="Whole Run" /><${Text} form=${form} path="spec.timeouts.unreachable" label="Unreachable" placeholder="5m" /></div>
      <${More} open=${problemIn(["spec.timeouts.start", "spec.timeouts.grace"])}><div class="pair"><${Text} form=${form} path="spec.timeouts.start" label="Start" placeholder="5m" /><${Text} form=${form} path="spec.timeouts.grace" label="From TERM to KILL" placeholder="10s" /></div></${More}></${Group}>
    <${Group} title="Rollout" small="how many at once"><div class="pair"><${Text} form=${form} path="spec.rollout.maxConcurrent" label="At once" placeholder="100%" help="24 or 10%" ...${number} /><${Text} form=${form} path="spec.retry.limit" label="Retries" placeholder="0" ...${number} /></div></${Group}>
    <${Group} title="When"><div class="pair"><${Choice} label="When" value=${get(draft, "spec.suspend") === true ? "held" : "now"} options=${[["now", "Once, now"], ["held", "Held back"]]} onPick=${(/** @type {string} */ value) => change(set(draft, "spec.suspend", value === "held" ? true : undefined), "spec.suspend")} /></div></${Group}>
    ${rest.length > 0 && html`<${Group} title="As YAML"><${Wrong} id="e-rest" texts=${rest.map((problem) => `${problem.field}: ${problemText(problem)}`)} /></${Group}>`}`;
}

/** Paths that have a field; problems elsewhere are listed at the end. */
const SHOWN = ["metadata.name", "metadata.namespace", "spec.targets.nodeSelector", "spec.targets.nodeNames", "spec.targets.exclude.nodeNames", "spec.run.command", "spec.run.script.interpreter", "spec.run.script.text",
  "spec.run.user", "spec.run.limits.memory", "spec.run.limits.pids", "spec.run.limits.cpu", "spec.run.workingDir", "spec.run.env", "spec.run.stdin", "spec.run.successExitCodes", "spec.run.output.limit",
  "spec.timeouts.run", "spec.timeouts.idle", "spec.timeouts.total", "spec.timeouts.unreachable", "spec.timeouts.start", "spec.timeouts.grace", "spec.rollout.maxConcurrent", "spec.retry.limit"];

/** @param {{form: Form}} props */
function Targets({ form }) {
  const { draft, change } = form;
  const targets = get(draft, "spec.targets") ?? {};
  const kind = targets.all === true ? "all" : targets.nodeNames ? "name" : "label";
  const keep = { ...(targets.exclude ? { exclude: targets.exclude } : {}), ...(targets.controlPlane ? { controlPlane: targets.controlPlane } : {}) };
  const pick = (/** @type {string} */ next) => {
    const chosen = next === "all" ? { all: true } : next === "name" ? { nodeNames: [] } : {};
    change(set(draft, "spec.targets", { ...chosen, ...keep }), "spec.targets");
  };
  const own = form.problems.filter(({ field }) => field === "spec.targets").map(problemText);
  return html`<${Group} title="Nodes" small="where it runs">
    <div class="pair"><span data-path="spec.targets" aria-invalid=${own.length > 0 ? "true" : undefined}><${Choice} label="Choose nodes" value=${kind} options=${[["label", "By label"], ["name", "By name"], ["all", "All"]]} onPick=${pick} /></span>
      ${kind !== "name" && html`<label class="check"><input type="checkbox" checked=${targets.controlPlane === "Include"} onChange=${(/** @type {any} */ event) => change(set(draft, "spec.targets.controlPlane", event.currentTarget.checked ? "Include" : undefined), "spec.targets")} /> Control planes too</label>`}</div>
    <${Wrong} id="e-targets" texts=${own} />
    ${kind === "label" && html`<${Text} form=${form} path="spec.targets.nodeSelector" label="Labels" cls="grow" mono placeholder="key=value, key in (a, b), !key" help=${labelHelp(form.nodes)} show=${selectorText} take=${(/** @type {string} */ text) => { const { selector, wrong } = parseSelector(text); return { value: Object.keys(selector).length > 0 ? selector : undefined, wrong: wrong ? `${wrong}.` : null }; }} />`}
    ${kind === "name" && html`<${Text} form=${form} path="spec.targets.nodeNames" label="Nodes" cls="grow" mono placeholder="web-[001-012], db-07" ...${list} />`}
    <div class="pair"><${Text} form=${form} path="spec.targets.exclude.nodeNames" label="Except" cls="w-m" help="node names" ...${list} /></div></${Group}>`;
}

/** Which labels there are, so that nobody has to remember them. @param {import("./types.js").Node[]} nodes */
function labelHelp(nodes) {
  /** @type {Map<string, Set<string>>} */
  const values = new Map();
  for (const node of nodes) for (const [key, value] of Object.entries(node.labels ?? {})) if (!/hostname$/.test(key)) values.set(key, (values.get(key) ?? new Set()).add(value));
  const some = [...values].filter(([, set]) => set.size > 1 && set.size <= 12).slice(0, 3).map(([key, set]) => `${key}: ${[...set].sort().slice(0, 4).join(", ")}${set.size > 4 ? "…" : ""}`);
  return some.length > 0 ? `here: ${some.join(" · ")}` : undefined;
}
