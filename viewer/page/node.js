// A node: what it has, how it is, and what was run there.

import { html } from "./html.js";
import { ago, at, bytes, count, memory, span, when } from "./format.js";
import { diskShare, PRESENCE, shortLabel } from "./figures.js";
import { look, stateText } from "./states.js";
import { executionPath } from "./address.js";
import { ask, search } from "./api.js";
import { Chip, Facts, Level, Panel, State, loadTone } from "./parts.js";
import { Spark, known } from "./spark.js";
import { now } from "./live.js";
import { took, useLoad, useSamples } from "./load.js";

/** @typedef {{samples: import("./types.js").Samples, cores: number, figures: import("./figures.js").Seen["figures"]}} Past */

/** @param {{seen: import("./figures.js").Seen, Past?: (past: Past) => any, most?: number}} props `Past` shows the last 15 minutes, `most` is how many commands are listed */
export function NodePanel({ seen, Past = Lines, most = 8 }) {
  const { name, node, labels, presence, heard, figures, rate } = seen;
  const samples = useSamples(name).data;
  // What is gone has no numbers, but it still is what it was.
  const metrics = presence === "unreachable" ? null : node.metrics;
  const shown = Object.entries(labels).filter(([key]) => !key.endsWith("/hostname"));
  return html`<div class="panel"><div class="head-line"><h1>${name}</h1><${Chip} look=${PRESENCE[presence]} /></div><p class="faint">${heard === null ? "No agent has connected from it." : `heard ${ago(heard)}`}</p></div>
    <div class="panel tools"><a class="btn" href=${`tasks/new?node=${encodeURIComponent(name)}`}>Run here…</a><a class="btn" href=${`history?node=${encodeURIComponent(name)}`}>History of ${name}</a></div>
    ${samples && known(samples.cpu).length > 0 && html`<${Past} samples=${samples} cores=${node.metrics?.cpuCount ?? 0} figures=${figures} />`}
    ${metrics && html`<${Panel} title="Now"><${Facts} facts=${[
      ["CPU", html`<${Level} share=${figures.cpu} /> <span class="soft">of ${count(metrics.cpuCount)} cores</span>`],
      ["Memory", html`<${Level} share=${figures.memory} /> <span class="soft">${memory(metrics.memoryUsed)} of ${memory(metrics.memoryTotal)}</span>`],
      ["Load", metrics.load.map((one) => one.toFixed(1)).join(", ")],
      ["Network", rate ? `in ${bytes(rate.received)}/s, out ${bytes(rate.sent)}/s` : ""],
      ["Running", `${metrics.running === 0 ? "no command" : count(metrics.running)}${metrics.runningLimit ? ` of ${count(metrics.runningLimit)} at once` : ""}`],
      ["Waiting output", metrics.spooled > 0 ? `${bytes(metrics.spooled)} not archived yet` : ""],
      ["Up", span(metrics.uptimeSeconds * 1000)],
    ]} /></${Panel}>
    ${metrics.disks.length > 0 && html`<${Panel} title="Disks"><${Facts} facts=${metrics.disks.map((disk) => [html`<span class="mono">${disk.mount}</span>`, html`<${Level} share=${diskShare(disk)} /> <span class="soft">${memory(disk.available)} free</span>`])} /></${Panel}>`}`}
    <${Panel} title="System"><${Facts} facts=${[
      ["Agent", node.agentVersion ?? ""],
      ["System", node.platform ?? ""],
      ["Runs in", (node.environments ?? []).join(", ")],
      ["Labels", shown.length > 0 ? html`<span class="tags">${shown.map(([key, value]) => html`<span class="tag" title=${`${key}=${value}`}>${shortLabel(key)}${value ? `=${value}` : ""}</span>`)}</span>` : ""],
    ]} /></${Panel}>
    <${Recent} name=${name} most=${most} />`;
}

/** The last 15 minutes, where there is little room. @param {Past} props */
function Lines({ samples, figures }) {
  const rates = [...known(samples.received), ...known(samples.sent)];
  const line = (/** @type {string} */ title, /** @type {(number | null)[]} */ values, /** @type {number | null} */ share) => html`<${Panel} title=${title}><${Spark} wide what=${title} values=${values} tone=${share === null ? "" : loadTone(share)} /></${Panel}>`;
  return html`${line("CPU", samples.cpu, figures.cpu)}${line("Memory", samples.memory, figures.memory)}
    ${rates.length > 0 && html`<${Panel} title="Network in"><${Spark} wide what="Network in" values=${samples.received} most=${Math.max(...rates)} text=${(/** @type {number} */ value) => `${bytes(value)}/s`} /></${Panel}>`}`;
}

/** @param {{name: string, most: number}} props */
function Recent({ name, most }) {
  const loaded = useLoad(`node ${name}`, (abort) => ask(`executions${search({ node: name, limit: most })}`, { signal: abort }), { every: 5000 });
  /** @type {import("./types.js").Execution[]} */
  const items = loaded.data?.items ?? [];
  if (items.length === 0) return null;
  return html`<${Panel} title="Last commands"><ol class="recent">${items.map((one) => {
    const ran = took(one, now.value);
    return html`<li><${State} look=${look(one.state)} text=${stateText(one)} /><a class="cut-text" href=${executionPath(one.namespace, one.task, one.run, one.node)}>${one.task} ${count(one.run)}</a><span class="faint">${ran === null ? "" : span(ran)}</span><span class="faint">${when(at(one.startedAt), now.value)}</span></li>`;
  })}</ol></${Panel}>`;
}
