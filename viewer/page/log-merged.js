// The log of all nodes of a Run, or of some: by time, live, each line with its node.

import { useEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { at, count, plural, span } from "./format.js";
import { hasEnded, isProblem, stateText } from "./states.js";
import { lineText, logPath, parseLine } from "./address.js";
import { byName, fold } from "./names.js";
import { Dialog, Empty, Failure, Icon, Search, copy, focusFilter } from "./parts.js";
import { save, search } from "./api.js";
import { absolute, go, here, path, setQuery, withQuery } from "./route.js";
import { now } from "./live.js";
import { ReadingTools, Streams, useReading, useReadingKeys } from "./log-reading.js";
import { LogView, NewLines } from "./log-view.js";
import { Banner, Download, Find, GoTo, rangeText, size, Times } from "./log-tools.js";
import { useHits } from "./log-search.js";
import { MergedSearch } from "./merged-search.js";
import { MergedSource } from "./merged-source.js";

/** @typedef {import("./types.js").Execution} Execution */
/** @typedef {import("./types.js").Merged} Merged */

/** @typedef {{node: string, attempt: number, at: number}} Place A line, which has no number among all. */

/** Most nodes at once; the operator takes no more. */
export const MOST_NODES = 256;

/** @param {{logs: import("./merged-source.js").Logs, items: Execution[], start: number}} props */
export function MergedLog({ logs, items, start }) {
  const { ns, name, query } = here.value;
  const { time = "clock", stream = "both", near } = query;
  const wrap = query.wrap === "1";
  const source = useMemo(() => new MergedSource(logs), []);
  const reading = useReading(source, !near && !logs.since);
  const { live, following, follow, controls, say, close } = reading;
  const [range, setRange] = useState(/** @type {{from: Merged | null, to: Merged | null}} */ ({ from: null, to: null }));

  useEffect(() => {
    if (near) void toTime(near);
    else void (logs.since ? source.line() : source.tail());
    return () => source.close();
  }, []);
  const isSame = (/** @type {Place} */ one, /** @type {Place} */ other) => one.node === other.node && one.attempt === other.attempt && one.at === other.at;
  const turn = useRef(0);
  // Many lines have one time: which of them it is stands behind it.
  const toTime = async (/** @type {string} */ text) => {
    const mine = (turn.current += 1);
    const [since, line] = text.split(",");
    const place = parseLine(line);
    const found = () => source.entries.find((entry) => (place ? isSame(entry, { ...place, at: place.position }) : (entry.atMicros ?? 0) / 1000 >= Date.parse(since)));
    follow(false);
    const isShown = await source.since(since);
    const isWanted = () => isShown && mine === turn.current;
    for (let n = 0; n < 10 && isWanted() && !found() && !source.atEnd; n += 1) await source.more();
    const entry = found();
    if (isWanted() && entry) controls.current?.show(entry.position);
  };
  const timeOf = (/** @type {Merged | null} */ entry) => (entry?.atMicros ? `${new Date(Math.floor(entry.atMicros / 1000)).toISOString()},${lineText({ node: entry.node, attempt: entry.attempt, position: entry.at })}` : "");
  // A line is one of its node: its link leads there, and the way back is the time.
  const linkOf = (/** @type {Merged} */ entry) => logPath(ns, name, logs.run, { node: entry.node, at: lineText({ node: entry.node, attempt: entry.attempt, position: entry.at }), q: query.q, stream, time, wrap: query.wrap, uid: query.uid });
  const find = useMemo(() => (query.q ? new MergedSearch(source, logs, query.q) : null), [query.q]);
  const matches = find !== null && query.show === "matches";
  const shown = matches ? find : source;
  const reveal = (/** @type {Merged} */ place) => {
    turn.current += 1;
    follow(false);
    const entry = matches ? find.nearest(place) : source.entries.find((one) => isSame(one, place));
    if (entry) controls.current?.show(entry.position);
    // A line without a time is found in the log of its node only.
    else if (place.atMicros && !matches) void toTime(timeOf(place));
    else if (!matches) go(linkOf(place));
  };
  const { hit, step, keep } = useHits(find, matches, range.from, reveal);
  const show = (/** @type {boolean} */ only, /** @type {Merged | null} */ place = hit ?? range.from) => {
    keep(place);
    setQuery({ show: only ? "matches" : "all", near: only ? query.near : timeOf(place) });
  };
  const onMark = (/** @type {Merged} */ entry) => {
    if (matches) return show(false, entry);
    setQuery({ near: timeOf(entry) }, { replace: true });
    go(linkOf(entry));
  };
  const copyLink = () => void copy(absolute(following || !range.from ? path() : withQuery({ near: timeOf(range.from) })), say);
  const download = (/** @type {string} */ end, /** @type {Record<string, string>} */ how) => () => save(`runs/${logs.uid}/${logs.run}/log${search({ nodes: logs.nodes.join(","), stream: stream === "both" ? undefined : stream, since: logs.since, until: logs.until, ...how })}`, `${name}-${logs.run}.${end}`).then(() => say("Saved."), (error) => say(error instanceof Error ? error.message : "It could not be saved."));
  const problem = items.find((item) => isProblem(item.state));
  useReadingKeys("Log of all nodes", reading, copyLink, [
    { ...focusFilter, does: "Search" },
    { key: "n", does: "Next hit", run: () => step(1) },
    { key: "N", does: "Previous hit", run: () => step(-1) },
    { key: "m", does: "Matches only, and back", run: () => find && show(!matches) },
    { key: ":", does: "Go to a time", run: () => reading.ask("goto") },
    { key: "v", does: "Nodes", run: () => reading.ask("nodes") },
    { key: "e", does: "Log of the first node with a problem", run: () => problem && go(logPath(ns, name, logs.run, { node: problem.node, uid: query.uid })) },
  ]);
  const error = source.error.value;
  // A line whose end is late is announced where it is not on the screen.
  const late = matches ? [] : source.late.filter((entry) => entry.late || entry.position < (range.from?.position ?? 0));
  const toLate = () => {
    source.late = [];
    controls.current?.show(late[0].position);
  };
  const onShown = (/** @type {Merged | undefined} */ from = undefined, /** @type {Merged | undefined} */ to = undefined) => {
    if (!matches) source.late = source.late.filter(({ late, position }) => late || position < (from?.position ?? 0));
    if (range.from !== from || range.to !== to) setRange({ from: from ?? null, to: to ?? null });
  };
  const nodes = logs.nodes.length > 0 ? logs.nodes.length : items.length;
  const current = hit ? find?.hitIn(hit) : undefined;
  const corrected = Math.max(0, ...source.nodes.map(({ offsetMillis = 0 }) => Math.abs(offsetMillis)));
  const done = items.filter(({ state }) => hasEnded(state)).length;
  const last = source.ended ? html`<li class="ours"><span class="n"></span><span></span><time></time><span></span><span class="t">${logs.until ? "What came later is not shown." : `${plural(nodes, "node")} ended`}</span></li>` : null;
  return html`
    <div class="log-tools">
      <button type="button" class="btn" aria-haspopup="dialog" onClick=${() => reading.ask("nodes")}>${logs.nodes.length > 0 ? `${count(nodes)} of ${plural(items.length, "node")}` : plural(nodes, "node")}<${Icon} name="down" /></button>
      <${Streams} />
      <${Find} find=${find} hit=${current} onStep=${step} where=${find ? ` on ${plural(find.nodes.size, "node")}` : ""} />
      ${find && html`<button type="button" class="btn" aria-pressed=${String(matches)} onClick=${() => show(!matches)}>Matches only</button>`}
      <${ReadingTools} reading=${reading} copyLink=${copyLink} />
    </div>
    <${Banner} source=${source} say=${say} />
    ${error ? html`<div class="log-wait"><${Failure} error=${error} what="These logs could not be read" onRetry=${() => void source.tail()} /></div>`
      : source.loaded && source.entries.length === 0 && source.ended ? html`<div class="log-wait"><${Empty}>${rangeText() ? "Nothing was written at these times." : stream === "both" ? "Nothing was written." : `Nothing was written to ${stream}.`}</${Empty}></div>`
      : html`<div class=${`log size-${size.value}`}><${LogView} key=${matches} source=${shown} solo=${false} following=${following} onFollow=${follow} closed=${reading.closed} onFold=${reading.fold} time=${time} start=${start} now=${time === "ago" ? now.value : 0} wrap=${wrap} marked=${null} linkOf=${linkOf} onMark=${onMark} controls=${controls} label=${`Output of ${plural(nodes, "node")}`} last=${matches ? null : last} find=${find} hit=${current} onShown=${onShown} /></div>`}
    <div class="log-foot"><span>${matches ? `${plural(find.hits.length, "match", "matches")} on ${plural(find.nodes.size, "node")}` : source.entries.length > 0 ? `${count(source.entries.length)} lines are here${source.atStart ? "" : ", earlier ones above"}` : live ? "No line yet" : ""}</span><span class="faint wide">${done < items.length ? `${count(done)} of ${count(items.length)} ended` : ""}</span><span class="faint wide">${corrected > 0 ? `clocks corrected by up to ${span(corrected)}` : "times by the clocks of the nodes"}</span><span class="grow" role="status">${reading.said}</span>
      ${late.length > 0 && html`<button type="button" class="btn" onClick=${toLate}><${Icon} name="late" />${plural(late.length, "line")} from ${late[0].node} came late</button>`}
      ${[["f", "follow"], ["n", "next hit"], ["m", "matches only"], ["v", "nodes"], [":", "go to time"], ["?", "all keys"]].map(([key, text]) => html`<span class="faint wide"><kbd>${key}</kbd> ${text}</span>`)}
      ${reading.isBehind && html`<${NewLines} lines=${reading.fresh} onClick=${reading.toLast} />`}</div>
    ${reading.asking === "goto" && html`<${GoTo} onClose=${close} onTime=${(/** @type {string} */ since) => void toTime(since)} day=${start} />`}
    ${reading.asking === "times" && html`<${Times} onClose=${close} day=${start} />`}
    ${reading.asking === "nodes" && html`<${Nodes} onClose=${close} items=${items} chosen=${logs.nodes} />`}
    ${reading.asking === "download" && html`<${Download} onClose=${close} files=${[{ name: ".txt", what: "each line with its node and time", run: download("txt", { timestamps: "true" }) }, { name: ".jsonl", what: "one JSON object a line", run: download("jsonl", { format: "jsonl" }) }]} />`}`;
}

/** Which nodes are shown. @param {{onClose: () => void, items: Execution[], chosen: string[]}} props */
function Nodes({ onClose, items, chosen }) {
  const [text, setText] = useState("");
  const [picked, setPicked] = useState(new Set(chosen.length > 0 ? chosen : items.slice(0, MOST_NODES).map(({ node }) => node)));
  const matching = items.filter(({ node, state }) => node.includes(text) || stateText({ state }).toLowerCase().includes(text.toLowerCase())).slice(0, 500);
  const pick = (/** @type {string} */ node) => {
    const next = new Set(picked);
    if (!next.delete(node)) next.add(node);
    setPicked(next);
  };
  const many = picked.size > MOST_NODES;
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    setQuery({ node: picked.size === items.length ? "" : fold([...picked].sort(byName)), near: "", at: "", to: "" });
    onClose();
  };
  return html`<${Dialog} title="Nodes" onClose=${onClose} wide><form class="goto" onSubmit=${submit}>
    <${Search} id="node-filter" label="Filter nodes" value=${text} placeholder="Name or state" onInput=${setText} />
    <p class="tools"><button type="button" class="btn" data-first onClick=${() => setPicked(new Set([...picked, ...matching.map(({ node }) => node)]))}>All of these</button><button type="button" class="btn" onClick=${() => setPicked(new Set())}>None</button><button type="button" class="btn" onClick=${() => setPicked(new Set(items.filter(({ state }) => isProblem(state)).map(({ node }) => node)))}>With a problem</button></p>
    <div class="node-list" tabindex="0" role="group" aria-label="Nodes">${matching.map(({ node, state, exitCode }) => html`<label class="check"><input type="checkbox" checked=${picked.has(node)} onChange=${() => pick(node)} /> <span class="cut-text">${node} <span class="faint">${stateText({ state, exitCode })}</span></span></label>`)}</div>
    <p class=${many ? "bad" : "soft"} role="status">${many ? `At most ${MOST_NODES} at once; ${count(picked.size)} are chosen.` : `${plural(picked.size, "node")} chosen`}</p>
    <p class="tools end"><button type="button" class="btn" onClick=${onClose}>Close</button><button type="submit" class="btn solid" disabled=${many || picked.size === 0}>Show</button></p></form></${Dialog}>`;
}
