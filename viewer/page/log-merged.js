// The log of all nodes of a Run, or of some: by time, live, each line with its node.

import { useEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { at, count, plural, span } from "./format.js";
import { hasEnded, isProblem, stateText } from "./states.js";
import { lineText, logPath, parseLine } from "./address.js";
import { byName, fold } from "./names.js";
import { Dialog, Empty, Failure, Icon, Search, Seg, copy } from "./parts.js";
import { save, search } from "./api.js";
import { absolute, go, here, path, setQuery, withQuery } from "./route.js";
import { now } from "./live.js";
import { useKeys } from "./keys.js";
import { headsOf } from "./log-groups.js";
import { LogView, NewLines } from "./log-view.js";
import { Banner, Download, GoTo, rangeText, resize, size, Sizes, Times } from "./log-tools.js";
import { MergedSource } from "./merged-source.js";

/** @typedef {import("./types.js").Execution} Execution */
/** @typedef {import("./types.js").Merged} Merged */

/** Most nodes at once; the operator takes no more. */
export const MOST_NODES = 256;

/** @param {{logs: import("./merged-source.js").Logs, items: Execution[], start: number}} props */
export function MergedLog({ logs, items, start }) {
  const { ns, name, query } = here.value;
  const { time = "clock", stream = "both", near } = query;
  const wrap = query.wrap === "1";
  const source = useMemo(() => new MergedSource(logs), []);
  const [following, setFollowing] = useState(!near && !logs.since);
  const [seen, setSeen] = useState(0);
  const [closed, setClosed] = useState(/** @type {Set<number>} */ (new Set()));
  const [asking, setAsking] = useState(/** @type {"" | "goto" | "times" | "download" | "nodes"} */ (""));
  const [said, say] = useState("");
  const [range, setRange] = useState(/** @type {{from: Merged | null, to: Merged | null}} */ ({ from: null, to: null }));
  const controls = useRef(/** @type {import("./log-view.js").Controls | null} */ (null));

  useEffect(() => {
    if (near) void toTime(near);
    else void (logs.since ? source.line() : source.tail());
    return () => source.close();
  }, []);
  useEffect(() => {
    const timer = said ? setTimeout(() => say(""), 4000) : 0;
    return () => clearTimeout(timer);
  }, [said]);
  source.version.value;
  const live = !source.ended;
  const follow = (/** @type {boolean} */ on) => {
    setFollowing(on && live);
    setSeen(source.arrived);
  };
  // Many lines have one time: which of them it is stands behind it.
  const toTime = async (/** @type {string} */ text) => {
    const [since, line] = text.split(",");
    const place = parseLine(line);
    const found = () => source.entries.find((entry) => (place ? entry.node === place.node && entry.at === place.position : (entry.atMicros ?? 0) / 1000 >= Date.parse(since)));
    follow(false);
    await source.since(since);
    for (let n = 0; n < 10 && !found() && !source.atEnd; n += 1) await source.more();
    const entry = found();
    if (entry) controls.current?.show(entry.position);
  };
  const timeOf = (/** @type {Merged | null} */ entry) => (entry?.atMicros ? `${new Date(Math.floor(entry.atMicros / 1000)).toISOString()},${lineText({ node: entry.node, attempt: entry.attempt, position: entry.at })}` : "");
  // A line is one of its node: its link leads there, and the way back is the time.
  const linkOf = (/** @type {Merged} */ entry) => logPath(ns, name, logs.run, { node: entry.node, at: lineText({ node: entry.node, attempt: entry.attempt, position: entry.at }), stream, time, wrap: query.wrap, uid: query.uid });
  const onMark = (/** @type {Merged} */ entry) => {
    setQuery({ near: timeOf(entry) }, { replace: true });
    go(linkOf(entry));
  };
  const copyLink = () => void copy(absolute(following || !range.from ? path() : withQuery({ near: timeOf(range.from) })), say);
  const fold_ = (/** @type {number} */ position) => {
    const next = new Set(closed);
    if (!next.delete(position)) next.add(position);
    setClosed(next);
  };
  const download = (/** @type {string} */ end, /** @type {Record<string, string>} */ how) => () => save(`runs/${logs.uid}/${logs.run}/log${search({ nodes: logs.nodes.join(","), stream: stream === "both" ? undefined : stream, since: logs.since, until: logs.until, ...how })}`, `${name}-${logs.run}.${end}`).then(() => say("Saved."), (error) => say(error instanceof Error ? error.message : "It could not be saved."));
  const close = () => setAsking("");
  const turn = (/** @type {string} */ key, /** @type {string[]} */ list, /** @type {string} */ value) => setQuery({ [key]: list[(list.indexOf(value) + 1) % list.length] }, { replace: true });
  const toLast = () => {
    setSeen(source.arrived);
    controls.current?.end();
  };
  const toEnd = () => (following ? follow(false) : toLast());
  const problem = items.find((item) => isProblem(item.state));
  useKeys("Log of all nodes", [
    { key: "f", does: "Follow", run: toEnd },
    { key: ":", does: "Go to a time", run: () => setAsking("goto") },
    { key: "r", does: "Times to show", run: () => setAsking("times") },
    { key: "v", does: "Nodes", run: () => setAsking("nodes") },
    { key: "d", does: "Next gap", run: () => void (controls.current?.gap(1) || say("No gap below, as far as it is read.")) },
    { key: "D", does: "Previous gap", run: () => void (controls.current?.gap(-1) || say("No gap above, as far as it is read.")) },
    { key: "e", does: "Log of the first node with a problem", run: () => problem && go(logPath(ns, name, logs.run, { node: problem.node, uid: query.uid })) },
    { key: "Home", does: "First line", run: () => controls.current?.home() },
    { key: "End", does: "Last line", run: toLast },
    { key: " ", does: "Next page", run: (event) => controls.current?.page(event.shiftKey ? -1 : 1) },
    { key: "PageDown", does: "Next page", run: () => controls.current?.page(1) },
    { key: "PageUp", does: "Previous page", run: () => controls.current?.page(-1) },
    { key: "ArrowDown", does: "Next line", run: () => controls.current?.by(1) },
    { key: "ArrowUp", does: "Previous line", run: () => controls.current?.by(-1) },
    { key: "j", does: "Next line", run: () => controls.current?.by(1) },
    { key: "k", does: "Previous line", run: () => controls.current?.by(-1) },
    { key: "w", does: "Wrap", run: () => setQuery({ wrap: wrap ? "" : "1" }, { replace: true }) },
    { key: "t", does: "Times", run: () => turn("time", ["clock", "ago", "start"], time) },
    { key: "s", does: "Streams", run: () => turn("stream", ["both", "stdout", "stderr"], stream) },
    { key: "z", does: "Close or open all groups", run: () => setClosed(closed.size > 0 ? new Set() : new Set(headsOf(source.entries))) },
    { key: "y", does: "Copy a link", run: copyLink },
    { key: "+", does: "Larger text", run: () => resize(1) },
    { key: "-", does: "Smaller text", run: () => resize(-1) },
  ]);
  const error = source.error.value;
  // Those that arrived while the reader was elsewhere stay announced when the log has ended.
  const fresh = following ? 0 : Math.max(0, source.arrived - seen);
  const [late] = source.late;
  const shown = logs.nodes.length > 0 ? logs.nodes.length : items.length;
  const corrected = Math.max(0, ...source.nodes.map(({ offsetMillis = 0 }) => Math.abs(offsetMillis)));
  const done = items.filter(({ state }) => hasEnded(state)).length;
  const last = source.ended ? html`<li class="ours"><span class="n"></span><span></span><time></time><span></span><span class="t">${logs.until ? "What came later is not shown." : `${plural(shown, "node")} ended`}</span></li>` : null;
  return html`
    <div class="log-tools">
      <button type="button" class="btn" aria-haspopup="dialog" onClick=${() => setAsking("nodes")}>${logs.nodes.length > 0 ? `${count(shown)} of ${plural(items.length, "node")}` : plural(shown, "node")}<${Icon} name="down" /></button>
      <${Seg} label="Streams" name="stream" value=${stream} replace options=${[{ value: "both", text: "Both" }, { value: "stdout", text: "stdout" }, { value: "stderr", text: "stderr" }]} />
      <span class="faint wide">${corrected > 0 ? `by time, clocks corrected by up to ${span(corrected)}` : "by the clocks of the nodes"}</span>
      <span class="grow"></span>
      <button type="button" class="btn" aria-pressed=${String(rangeText() !== "")} onClick=${() => setAsking("times")}>${rangeText() || "All times"}</button>
      <${Seg} label="Times" name="time" value=${time} replace options=${[{ value: "clock", text: "Time" }, { value: "ago", text: "Ago" }, { value: "start", text: "Since start" }]} />
      <${Sizes} />
      <button type="button" class="btn" aria-pressed=${String(wrap)} onClick=${() => setQuery({ wrap: wrap ? "" : "1" }, { replace: true })}>Wrap</button>
      <button type="button" class="btn square" aria-label="Copy a link" title="Copy a link (y)" onClick=${copyLink}><${Icon} name="link" /></button>
      <button type="button" class="btn" onClick=${() => setAsking("download")}><${Icon} name="save" />Download…</button>
      <button type="button" class="btn" aria-pressed=${String(following && live)} disabled=${!live} onClick=${toEnd}>Follow</button>
    </div>
    <${Banner} source=${source} say=${say} />
    ${error ? html`<div class="log-wait"><${Failure} error=${error} what="These logs could not be read" onRetry=${() => void source.tail()} /></div>`
      : source.loaded && source.entries.length === 0 && source.ended ? html`<div class="log-wait"><${Empty}>${rangeText() ? "Nothing was written at these times." : stream === "both" ? "Nothing was written." : `Nothing was written to ${stream}.`}</${Empty}></div>`
      : html`<div class=${`log size-${size.value}`}><${LogView} source=${source} solo=${false} following=${following && live} onFollow=${follow} closed=${closed} onFold=${fold_} time=${time} start=${start} now=${time === "ago" ? now.value : 0} wrap=${wrap} marked=${null} linkOf=${linkOf} onMark=${onMark} controls=${controls} label=${`Output of ${plural(shown, "node")}`} last=${last} find=${null} hit=${-1}
        onShown=${(/** @type {Merged | undefined} */ from = undefined, /** @type {Merged | undefined} */ to = undefined) => (range.from !== from || range.to !== to) && setRange({ from: from ?? null, to: to ?? null })} /></div>`}
    <div class="log-foot"><span>${source.entries.length > 0 ? `${count(source.entries.length)} lines are here${source.atStart ? "" : ", earlier ones above"}` : live ? "No line yet" : ""}</span><span class="faint wide">${done < items.length ? `${count(done)} of ${count(items.length)} ended` : ""}</span><span class="grow" role="status">${said}</span>
      ${late && html`<button type="button" class="btn" onClick=${() => { controls.current?.show(late.position); source.late = []; }}><${Icon} name="late" />${plural(source.late.length, "line")} from ${late.node} came late</button>`}
      ${[["f", "follow"], ["v", "nodes"], ["d", "next gap"], [":", "go to time"], ["?", "all keys"]].map(([key, text]) => html`<span class="faint wide"><kbd>${key}</kbd> ${text}</span>`)}
      ${(live || fresh > 0) && source.loaded && !following && html`<${NewLines} lines=${fresh} onClick=${toLast} />`}</div>
    ${asking === "goto" && html`<${GoTo} onClose=${close} onTime=${(/** @type {string} */ since) => void toTime(since)} day=${start} />`}
    ${asking === "times" && html`<${Times} onClose=${close} day=${start} />`}
    ${asking === "nodes" && html`<${Nodes} onClose=${close} items=${items} chosen=${logs.nodes} />`}
    ${asking === "download" && html`<${Download} onClose=${close} files=${[{ name: ".txt", what: "each line with its node and time", run: download("txt", { timestamps: "true" }) }, { name: ".jsonl", what: "one JSON object a line", run: download("jsonl", { format: "jsonl" }) }]} />`}`;
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
