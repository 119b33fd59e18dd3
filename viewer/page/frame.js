// The frame of every page: top bar, help, go to.

import { useMemo, useState } from "./vendor/hooks.js";
import { signal } from "./vendor/signals.js";
import { html } from "./html.js";
import { ask } from "./api.js";
import { executionPath, logPath, nodePath, runPath, taskPath } from "./address.js";
import { Dialog, Icon } from "./parts.js";
import { go, here } from "./route.js";
import { groups, letters, setLetters, useKeys } from "./keys.js";
import { connection, tasks } from "./live.js";
import { commandText } from "./draft.js";
import { byName } from "./names.js";

const open = signal(/** @type {"" | "help" | "goto"} */ (""));
const close = () => (open.value = "");

const theme = signal(document.documentElement.dataset.theme ?? "auto");
const turnTheme = () => {
  dispatchEvent(new Event("sentinel-theme"));
  theme.value = document.documentElement.dataset.theme ?? "auto";
};
const themeName = () => ({ auto: "automatic", light: "light", dark: "dark" })[theme.value] ?? "automatic";

/** @type {[string, string, string[]][]} */
const PLACES = [
  ["tasks", "Tasks", ["tasks", "task", "execution", "log", "form"]],
  ["fleet", "Fleet", ["fleet", "node"]],
  ["history", "History", ["history"]],
];

export function Frame() {
  useKeys("Everywhere", [
    { key: "?", does: "Help", run: () => (open.value = "help") },
    { key: "g", does: "Go to a Task, node or Run", run: () => (open.value = "goto") },
    { key: "T", does: "Change the theme", shown: "Shift+T", run: turnTheme },
    { key: "Escape", does: "Back out", run: () => up() },
  ]);
  const { page } = here.value;
  const { tone, icon, word } = connection.value;
  return html`<a class="skip" href="#main">Skip to content</a>
    <header class="bar">
      <a class="brand" href="tasks" aria-label="Sentinel Node"><${Icon} name="mark" cls="mark-icon" /><b>Sentinel Node</b></a>
      <nav aria-label="Pages">${PLACES.map(([path, name, pages]) => html`<a href=${path} aria-current=${pages.includes(page) ? "page" : undefined}>${name}</a>`)}</nav>
      <button type="button" class="btn jump" onClick=${() => (open.value = "goto")}><${Icon} name="find" /><span>Go to a Task, node or Run</span><kbd aria-hidden="true">g</kbd></button>
      <span class=${`state ${tone} live`} role="status"><${Icon} name=${icon} label=${word} /><span class="word" aria-hidden="true">${word}</span></span>
      <button type="button" class="btn quiet square" aria-label=${`Theme: ${themeName()}`} title=${`Theme: ${themeName()}`} onClick=${turnTheme}><${Icon} name="theme" /></button>
      <button type="button" class="btn quiet square wide" aria-label="Keyboard help" title="Keyboard help" onClick=${() => (open.value = "help")}><${Icon} name="help" /></button>
    </header>
    ${open.value === "help" && html`<${Help} />`}${open.value === "goto" && html`<${GoTo} />`}`;
}

/** To what this view is a part of. */
function up() {
  const { page, ns, name, run } = here.peek();
  if (page === "execution" || page === "log") go(runPath(ns, name, run ?? 1));
  else if (page === "node") go("fleet");
  else if (page === "task" || page === "form") go("tasks");
}

function Help() {
  return html`<${Dialog} title="Keys" onClose=${close} wide>
    <div class="help-keys">${groups.value.map(({ where, list }) => html`<section><h2>${where}</h2><dl class="facts">${list().map(({ key, does, shown }) => html`<dt><kbd>${shown ?? (key === " " ? "Space" : key)}</kbd></dt><dd>${does}</dd>`)}</dl></section>`)}</div>
    <p><label class="check"><input type="checkbox" checked=${letters.value} onChange=${(/** @type {any} */ event) => setLetters(event.currentTarget.checked)} /> Single letters are keys</label></p>
    <p class="tools end"><button type="button" class="btn" data-first onClick=${close}>Close</button></p></${Dialog}>`;
}

/** @typedef {{path: string, title: string, side: string, kind: string}} Place */

/** Letters in order, the nearer together the better. @param {string} text @param {string} wanted */
function fuzzy(text, wanted) {
  let at = -1;
  let cost = 0;
  for (const letter of wanted) {
    const next = text.indexOf(letter, at + 1);
    if (next < 0) return Infinity;
    cost += at < 0 ? next / 4 : next - at - 1;
    at = next;
  }
  return cost + text.length / 100;
}

function GoTo() {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const [nodes, setNodes] = useState(/** @type {string[]} */ ([]));
  useMemo(() => void ask("nodes").then((answer) => setNodes(answer.items.map((/** @type {{name: string}} */ node) => node.name)), () => {}), []);
  const places = useMemo(() => allPlaces(nodes), [nodes]);
  const wanted = text.toLowerCase().replace(/\s+/g, "");
  const found = wanted === "" ? places.slice(0, 12) : places.map((place) => ({ place, cost: fuzzy(place.title.toLowerCase(), wanted) })).filter(({ cost }) => cost < Infinity).sort((a, b) => a.cost - b.cost).slice(0, 12).map(({ place }) => place);
  const pick = (/** @type {Place | undefined} */ place) => {
    if (!place) return;
    close();
    go(place.path);
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter") pick(found[at]);
    else if (step) setAt(Math.min(found.length - 1, Math.max(0, at + step)));
    else return;
    event.preventDefault();
  };
  return html`<${Dialog} title="Go to" onClose=${close}>
    <label class="field"><${Icon} name="find" /><span class="sr">Task, node or Run</span><input data-first role="combobox" aria-expanded="true" aria-controls="places" aria-activedescendant=${found[at] ? `place-${at}` : undefined} value=${text} placeholder="Task, node or Run" spellcheck=${false} autocomplete="off" onInput=${(/** @type {any} */ event) => (setText(event.currentTarget.value), setAt(0))} onKeyDown=${onKey} /></label>
    <ul id="places" class="places" role="listbox" aria-label="Places">${found.map((place, index) => html`<li id=${`place-${index}`} role="option" aria-selected=${String(index === at)} onClick=${() => pick(place)}><span class="faint">${place.kind}</span><span class="grow cut-text">${place.title}</span><span class="faint cut-text side">${place.side}</span></li>`)}</ul>
    ${found.length === 0 && html`<p class="soft">Nothing is called so.</p>`}</${Dialog}>`;
}

/** @param {string[]} nodes @returns {Place[]} */
function allPlaces(nodes) {
  const { page, ns, name, run, node } = here.peek();
  /** @type {Place[]} */
  const places = [];
  if (page === "execution" && run) places.push({ kind: "Log", path: logPath(ns, name, run, { node }), title: `${name} ${node}`, side: "log of this node" });
  for (const task of tasks.peek().values()) {
    const of = task.metadata;
    places.push({ kind: "Task", path: taskPath(of.namespace, of.name), title: `${of.namespace}/${of.name}`, side: commandText(task.spec.run) });
    for (const { number } of [task.status?.run, ...(task.status?.recentRuns ?? [])].filter((one) => one != null)) {
      places.push({ kind: "Run", path: runPath(of.namespace, of.name, number), title: `${of.namespace}/${of.name} ${number}`, side: "" });
      if (page === "execution" && of.name === name && node) places.push({ kind: "Execution", path: executionPath(ns, name, number, node), title: `${name} ${number} ${node}`, side: "" });
    }
  }
  return [...places, ...nodes.sort(byName).map((one) => ({ kind: "Node", path: nodePath(one), title: one, side: "" }))];
}
