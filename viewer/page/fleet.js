// The fleet: how many, how they are, then a table or a map.

import { useEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { ago, count, memory, plural } from "./format.js";
import { nodePath } from "./address.js";
import { nodeFilter } from "./selector.js";
import { byName } from "./names.js";
import { distribution, PRESENCE, rateOf, seen, shortLabel, usefulLabels } from "./figures.js";
import { Empty, Failure, Icon, Level, Meter, Note, Pick, Scroll, Search, Seg, Th, focusFilter, loadTone, rowKeys, sorted, useTitle } from "./parts.js";
import { go, here, setQuery, withQuery } from "./route.js";
import { connection, now } from "./live.js";
import { useKeys } from "./keys.js";
import { useLoad, useNodes } from "./load.js";
import { ask, search } from "./api.js";
import { Spark } from "./spark.js";
import { FleetMap, Ramp } from "./fleet-map.js";
import { NodePanel } from "./node.js";

/** @typedef {import("./types.js").Node} Node */
/** @typedef {import("./figures.js").Seen} Seen */

/** Rows in the document; the filter finds the others. */
const MOST_ROWS = 300;

/** All nodes as rows, with what their network did between two samples. */
function useSeen() {
  const loaded = useNodes();
  const before = useRef(/** @type {Map<string, {node: Node, rate: ReturnType<typeof rateOf>}>} */ (new Map()));
  const items = loaded.data?.items;
  const rates = useMemo(() => {
    const next = new Map();
    for (const node of items ?? []) {
      const known = before.current.get(node.name);
      const rate = rateOf(known?.node, node);
      // Until the node is heard again, the last rate is how it is.
      next.set(node.name, rate || known?.node.lastHeardAt !== node.lastHeardAt ? { node, rate } : known);
    }
    before.current = next;
    return next;
  }, [items]);
  const time = now.value;
  // By name once for each answer: with fifteen thousand nodes that is not for every second.
  const named = useMemo(() => [...(items ?? [])].sort((a, b) => byName(a.name, b.name)), [items]);
  const nodes = useMemo(() => named.map((node) => seen(node, time, rates.get(node.name)?.rate ?? null, loaded.data?.asked ?? time)), [named, time]);
  return { ...loaded, nodes };
}

export function FleetPage() {
  const { query } = here.value;
  const { view = "table", q = "", sort = "" } = query;
  useTitle("Fleet");
  const { nodes, data, error, again } = useSeen();
  const labels = useMemo(() => usefulLabels(nodes), [data]);
  const matching = useMemo(() => nodes.filter(nodeFilter(q)), [nodes, q]);
  const presence = query.state ?? "";
  const shown = presence ? matching.filter((node) => node.presence === presence) : matching;
  const group = labels.includes(query.group ?? "") ? query.group : query.group === "none" ? "" : labels[0] ?? "";
  const colours = ["state", "cpu", "memory", "disk", ...(group || labels[0] ? ["label"] : [])];
  const colour = colours.includes(query.colour ?? "") ? query.colour : "state";
  const picked = nodes.find((node) => node.name === query.node);
  const turn = (/** @type {string[]} */ list, /** @type {string} */ value) => list[(list.indexOf(value) + 1) % list.length];
  useKeys("Fleet", [
    focusFilter, ...rowKeys,
    { key: "m", does: "Map or table", run: () => setQuery({ view: view === "map" ? "table" : "map" }) },
    { key: "c", does: "Next colour", run: () => setQuery({ colour: turn(colours, colour) }) },
    { key: "o", does: "Next grouping", run: () => setQuery({ group: turn([...labels, "none"], group || "none") }) },
  ]);
  // A fleet of one node is that node.
  const only = nodes.length === 1 ? nodes[0].name : "";
  useEffect(() => {
    if (only) go(nodePath(only), { replace: true });
  }, [only]);
  const head = html`<div class="head"><div class="head-line"><h1>Fleet</h1><span class="grow"></span><a class="btn solid" href="tasks/new"><${Icon} name="plus" />New Task</a></div>
    ${nodes.length > 1 && html`<${Glance} nodes=${nodes} presence=${presence} />`}</div>`;
  const main = (/** @type {any} */ content) => html`<main id="main" tabindex="-1" class=${connection.value.lost ? "aging" : ""}>${head}${content}</main>`;
  if (!data && error) return main(html`<${Failure} error=${error} what="The nodes could not be read" onRetry=${again} />`);
  if (!data || only) return main(html`<div aria-busy="true"></div>`);
  if (nodes.length === 0) return main(html`<${Empty}>No agent has connected yet.</${Empty}>`);
  return main(html`
    <div class="toolbar">
      <${Seg} label="View" name="view" value=${view} options=${[{ value: "table", text: "Table" }, { value: "map", text: "Map" }]} />
      <${Search} label="Filter nodes" value=${q} placeholder="Name or label, such as pool=web disk>90" onInput=${(/** @type {string} */ text) => setQuery({ q: text }, { replace: true })} />
      ${view === "map" && html`${labels.length > 0 && html`<${Pick} label="Group by" value=${group || "none"} options=${[...labels.map((key) => [key, `By ${shortLabel(key)}`]), ["none", "No groups"]]} onPick=${(/** @type {string} */ value) => setQuery({ group: value })} />`}
        <${Seg} label="Colour by" name="colour" value=${colour} options=${colours.map((value) => ({ value, text: { state: "State", cpu: "CPU", memory: "Memory", disk: "Disk" }[value] ?? "Label" }))} />`}
      <span class="grow"></span>
      ${view === "map" ? html`<${Ramp} colour=${colour} />` : html`<span class="faint wide">${count(shown.length)} of ${count(nodes.length)}${sort ? "" : ", problems first"}</span>`}
    </div>
    ${error && html`<${Note}>These are the nodes of a while ago: ${String(/** @type {Error} */ (error).message)}</${Note}>`}
    ${shown.length === 0 ? html`<${Empty}>None of ${plural(nodes.length, "node")} matches${q ? html` <code>${q}</code>` : ""}. <a class="link" href=${withQuery({ q: "", state: "" })}>Clear filters</a></${Empty}>`
      : view === "map" ? html`<div class="split"><${FleetMap} nodes=${shown} group=${group} colour=${colour} label=${group || labels[0] || ""} picked=${picked?.name} />
          <aside aria-label=${picked ? `Node ${picked.name}` : "Node"}>${picked ? html`<${NodePanel} seen=${picked} />` : html`<p class="panel faint">A cell shows its node here.</p>`}</aside></div>`
      : html`<${Table} rows=${shown} sort=${sort} labels=${labels.slice(0, 2)} />`}`);
}

/** @param {{nodes: Seen[], presence: string}} props */
function Glance({ nodes, presence }) {
  const of = (/** @type {string} */ wanted) => nodes.filter((node) => node.presence === wanted).length;
  const shares = Object.entries(PRESENCE).map(([name, look]) => ({ name, look, count: of(name) })).filter((share) => share.count > 0);
  const running = nodes.reduce((all, node) => all + (node.figures.running ?? 0), 0);
  const busy = nodes.filter((node) => (node.figures.running ?? 0) > 0).length;
  const figure = (/** @type {string} */ name, /** @type {string} */ title) => html`<${Histogram} title=${title} name=${name} values=${nodes.map((node) => node.figures[name])} />`;
  return html`<div class="glance">
    <section aria-label="Presence"><div class="head-line"><span class="big">${plural(nodes.length, "node")}</span></div>
      <${Meter} shares=${shares} total=${nodes.length} label=${shares.map((share) => `${share.count} ${share.name}`).join(", ")} />
      <div class="legend">${shares.map((share) => html`<a class=${share.look.tone} href=${withQuery({ state: presence === share.name ? "" : share.name })} aria-current=${presence === share.name ? "true" : undefined}><${Icon} name=${share.look.icon} /><span><b>${count(share.count)}</b> ${share.name}</span></a>`)}</div></section>
    ${figure("cpu", "CPU")}${figure("memory", "Memory")}${figure("disk", "Fullest disk")}
    <section><h2>Commands</h2><span class="big">${count(running)}</span> <span class="soft">running</span><br /><span class="faint">on ${plural(busy, "node")}</span></section></div>`;
}

/** At many nodes the distribution says more than rows; a bar is a filter. @param {{title: string, name: string, values: (number | null)[]}} props */
function Histogram({ title, name, values }) {
  const { counts, median, p95, known } = distribution(values);
  const most = Math.max(1, ...counts);
  const width = 100 / counts.length;
  const from = (/** @type {number} */ index) => Math.floor((index * 100) / counts.length);
  return html`<section><h2>${title} <span>${known > 0 && html`<span class="wide">median ${Math.round(median ?? 0)}% · </span>p95 ${Math.round(p95 ?? 0)}%`}</span></h2>
    <svg class="hist" role="group" aria-label=${`${title} of ${plural(known, "node")}`}>${counts.map((n, index) => {
      if (n === 0) return null;
      const height = Math.max(2.5, (n / most) * 32);
      const text = `${plural(n, "node")} at ${from(index)} to ${from(index + 1)}%`;
      return html`<a href=${withQuery({ q: `${name}>=${from(index)} ${name}<=${from(index + 1)}` })} aria-label=${text} tabindex="-1"><title>${text}</title><rect class="hit" x=${`${index * width}%`} y="0" width=${`${width}%`} height="34" /><rect class=${loadTone(from(index) + 1)} x=${`${index * width}%`} y=${34 - height} width=${`${width - 0.9}%`} height=${height} /></a>`;
    })}</svg></section>`;
}

/** Most names in one question. */
const MOST_SAMPLED = 100;

/**
 * The CPU of the rows that are on the screen, over the last 15 minutes.
 *
 * @param {string[]} names of the rows
 * @returns {[import("preact").RefObject<any>, Map<string, (number | null)[]>]}
 */
function useSparks(names) {
  const body = useRef(/** @type {HTMLElement | null} */ (null));
  const [seen, setSeen] = useState("");
  const all = names.join();
  useEffect(() => {
    /** @type {Set<string>} */
    const inView = new Set();
    let timer = 0;
    const watcher = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const name = /** @type {HTMLElement} */ (target).dataset.node ?? "";
        if (isIntersecting) inView.add(name);
        else inView.delete(name);
      }
      clearTimeout(timer);
      // While the reader scrolls, nothing is requested; the request follows when scrolling stops.
      timer = setTimeout(() => setSeen([...inView].sort().slice(0, MOST_SAMPLED).join()), 100);
    });
    for (const row of body.current?.children ?? []) watcher.observe(row);
    return () => {
      clearTimeout(timer);
      watcher.disconnect();
    };
  }, [all]);
  const { data } = useLoad(seen ? `sparks ${seen}` : null, (abort) => ask(`samples${search({ nodes: seen })}`, { signal: abort }), { every: 10_000 });
  const kept = useRef(/** @type {Map<string, (number | null)[]>} */ (new Map()));
  useMemo(() => {
    // What has been shown stays until it is asked for again, as long as its row is there.
    const rows = new Set(names);
    for (const name of kept.current.keys()) if (!rows.has(name)) kept.current.delete(name);
    for (const [name, cpu] of Object.entries(data?.cpu ?? {})) kept.current.set(name, cpu);
  }, [data, all]);
  return [body, kept.current];
}

/** @param {{rows: Seen[], sort: string, labels: string[]}} props */
function Table({ rows, sort, labels }) {
  const figure = (/** @type {string} */ name) => (/** @type {Seen} */ row) => row.figures[name] ?? -1;
  const ordered = sorted([...rows].sort((a, b) => a.rank - b.rank), sort, {
    presence: (row) => row.rank, name: (row) => row.name, cpu: figure("cpu"), memory: figure("memory"), disk: figure("disk"), running: figure("running"),
    load: (row) => (row.node.metrics ? row.node.metrics.load[0] / Math.max(1, row.node.metrics.cpuCount) : -1), network: (row) => (row.rate ? row.rate.received + row.rate.sent : -1),
    agent: (row) => row.node.agentVersion ?? "", heard: (row) => row.heard ?? Infinity, ram: (row) => row.node.metrics?.memoryTotal ?? 0, ...Object.fromEntries(labels.map((key) => [key, (/** @type {Seen} */ row) => row.labels[key] ?? ""])),
  });
  const shown = ordered.slice(0, MOST_ROWS);
  const [body, sparks] = useSparks(shown.map((row) => row.name));
  return html`<${Scroll} label="Nodes"><table>
    <thead><tr><${Th} name="presence" sort=${sort}><span class="sr">Presence</span>${!sort.endsWith("presence") && html`<${Icon} name="down" />`}</${Th}><${Th} name="name" sort=${sort}>Node</${Th}>${labels.map((key) => html`<${Th} name=${key} sort=${sort} cls="wide">${shortLabel(key)}</${Th}>`)}
      <${Th} name="cpu" sort=${sort}>CPU</${Th}><th scope="col">Last 15 min</th><${Th} name="memory" sort=${sort}>Memory</${Th}><${Th} name="ram" sort=${sort} cls="num">RAM</${Th}><${Th} name="disk" sort=${sort}>Fullest disk</${Th}><${Th} name="load" sort=${sort} cls="num">Load / cores</${Th}><${Th} name="network" sort=${sort} cls="num">In / out, MB/s</${Th}><${Th} name="running" sort=${sort} cls="num">Running</${Th}><${Th} name="agent" sort=${sort}>Agent</${Th}><${Th} name="heard" sort=${sort} cls="num">Heard</${Th}></tr></thead>
    <tbody ref=${body}>${shown.map((row) => html`<${Row} key=${row.name} row=${row} labels=${labels} spark=${sparks.get(row.name)} />`)}</tbody></table>
    ${ordered.length > MOST_ROWS && html`<p class="faint more">and ${count(ordered.length - MOST_ROWS)} more. The filter finds them, and the map shows all.</p>`}</${Scroll}>`;
}

/** @param {{row: Seen, labels: string[], spark?: (number | null)[]}} props */
function Row({ row, labels, spark }) {
  const { tone, icon, word } = PRESENCE[row.presence];
  const metrics = row.node.metrics;
  const gone = row.presence === "unreachable";
  const mega = (/** @type {number} */ n) => (n / 1e6).toFixed(1);
  return html`<tr data-node=${row.name}>
    <td><span class=${`state ${tone}`}><${Icon} name=${icon} label=${word} /></span></td><td><a class="name" href=${nodePath(row.name)}>${row.name}</a></td>${labels.map((key) => html`<td class="soft wide">${row.labels[key] ?? ""}</td>`)}
    <td><${Level} share=${row.figures.cpu} /></td><td>${gone ? html`<span class="faint">no heartbeat</span>` : spark ? html`<${Spark} what="CPU" values=${spark} tone=${loadTone(row.figures.cpu ?? 0)} />` : html`<span class="spark"></span>`}</td><td><${Level} share=${row.figures.memory} /></td><td class="num soft">${metrics ? memory(metrics.memoryTotal) : "–"}</td><td title=${row.disk?.mount}><${Level} share=${row.figures.disk} /></td>
    <td class="num">${gone || !metrics ? "–" : metrics.load[0].toFixed(1)}<span class="faint"> / ${metrics?.cpuCount ?? "–"}</span></td><td class="num soft">${row.rate ? `${mega(row.rate.received)} / ${mega(row.rate.sent)}` : "–"}</td>
    <td class="num">${row.figures.running ? count(row.figures.running) : html`<span class="faint">${gone ? "–" : "0"}</span>`}</td><td class="soft">${row.node.agentVersion ?? "–"}</td>
    <td class=${`num ${gone ? "lost" : row.presence === "late" ? "late" : "soft"}`}>${row.heard === null ? "never" : ago(row.heard)}</td></tr>`;
}
