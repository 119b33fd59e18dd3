// The log of one node of a Run: live, from any line, with links that last.

import { useEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { at, bytes, count, plural, span } from "./format.js";
import { hasEnded, isProblem, look, stateText } from "./states.js";
import { executionPath, lineText, logPath, parseLine, runPath, taskPath } from "./address.js";
import { unfold } from "./names.js";
import { save, search, token } from "./api.js";
import { Chip, Empty, Failure, Icon, Pick, copy, focusFilter, useTitle } from "./parts.js";
import { absolute, go, here, path, setQuery, withQuery } from "./route.js";
import { now } from "./live.js";
import { useExecutions, useUid } from "./load.js";
import { LogSource } from "./log-source.js";
import { ReadingTools, Streams, useReading, useReadingKeys } from "./log-reading.js";
import { LogSearch, useHits } from "./log-search.js";
import { LogView, NewLines } from "./log-view.js";
import { MergedLog, MOST_NODES } from "./log-merged.js";
import { Banner, Download, Find, GoTo, Minimap, rangeText, size, Times } from "./log-tools.js";

/** @typedef {import("./types.js").Execution} Execution */

export function LogPage() {
  const { ns, name, run, query } = here.value;
  const number = run ?? 1;
  const { task, uid, missing } = useUid(ns, name, query.uid);
  const isLatest = task?.status?.run?.number === number;
  const active = Boolean(isLatest && !task?.status?.run?.verdict);
  const executions = useExecutions(uid, number, { active, version: isLatest ? task?.metadata.resourceVersion : 0 });
  const items = executions.data?.items ?? null;
  const place = parseLine(query.at);
  const names = query.node ? unfold(query.node) : [];
  // A line is one of its node; otherwise all that are named, or all.
  const only = place?.node ?? (names.length === 1 ? names[0] : names.length === 0 && items?.length === 1 ? items[0].node : null);
  const wanted = only ?? (items?.length ? `${count(names.length || items.length)} nodes` : "");
  const one = items?.find((item) => item.node === only) ?? null;
  useTitle(`Log of ${wanted || name}, Run ${number} of ${ns}/${name}`);
  useEffect(() => {
    if (only && query.node !== only) setQuery({ node: only }, { replace: true });
  }, [only, query.node]);
  const head = html`<div class="log-head"><div class="crumbs"><a class="wide" href="tasks">Tasks</a><span class="wide">/</span> <a class="wide" href=${`tasks?ns=${encodeURIComponent(ns)}`}>${ns}</a><span class="wide">/</span> <a href=${taskPath(ns, name)}>${name}</a> / <a href=${runPath(ns, name, number)}>Run ${count(number)}</a> / ${only && html`<a href=${executionPath(ns, name, number, only)}>${only}</a> /`}</div><h1>Log</h1>${one && html`<${Chip} look=${look(one.state)} text=${stateText(one)} />`}<span class="grow"></span>${only && html`<span class="faint wide">times by the clock of the node</span>`}</div>`;
  if (!uid || !items || !wanted) {
    return html`<main id="main" tabindex="-1">${head}<div class="log-wait">${missing ? html`<div class="empty"><h2>There is no Task ${ns}/${name}</h2></div>`
      : executions.error && !items ? html`<${Failure} error=${executions.error} what="The nodes of this Run could not be read" onRetry=${executions.again} />`
      : items && items.length === 0 ? html`<${Empty}>This Run had no node.</${Empty}>` : html`<div aria-busy="true"></div>`}</div></main>`;
  }
  if (!only) {
    // More than the operator takes: those with problems are first.
    const cut = (names.length || items.length) > MOST_NODES;
    const nodes = cut ? (names.length > 0 ? names : items.map(({ node }) => node)).slice(0, MOST_NODES) : names;
    const logs = { uid, run: number, nodes, stream: query.stream ?? "both", since: query.since, until: query.until };
    return html`<main id="main" tabindex="-1">${head}<${MergedLog} key=${JSON.stringify([logs, token.value])} logs=${logs} items=${items} start=${at(task?.status?.run?.startedAt)} /></main>`;
  }
  // Without one it is the latest: when the next one begins, that is shown.
  const attempt = place?.attempt ?? ((Number(query.attempt) || one?.attempt) || null);
  const stream = query.stream ?? "both";
  const { since, until } = query;
  return html`<main id="main" tabindex="-1">${head}<${OneLog} key=${`${uid}/${number}/${only}/${attempt ?? "latest"}/${stream}/${since}/${until}/${token.value}`} log=${{ uid, run: number, node: only, attempt, stream, since, until }} one=${one} items=${items} place=${place} start=${at(task?.status?.run?.startedAt)} /></main>`;
}

/** @param {{log: import("./log-source.js").Log, one: Execution | null, items: Execution[], place: import("./address.js").LinePlace | null, start: number}} props */
function OneLog({ log, one, items, place, start }) {
  const { ns, name, query } = here.value;
  const { time = "clock", stream = "both" } = query;
  const wrap = query.wrap === "1";
  const source = useMemo(() => new LogSource(log), []);
  const reading = useReading(source, !place);
  const { live, following, follow, controls, say, close } = reading;
  const [range, setRange] = useState({ from: 0, to: 0, fromLine: 1, toLine: 1 });
  const opened = useRef(false);
  const begun = (one?.attempt ?? 0) > 0;

  const open = async (/** @type {number} */ position) => {
    if (await source.position(position)) controls.current?.show(position);
  };
  useEffect(() => () => source.close(), []);
  useEffect(() => {
    if (!begun || opened.current) return;
    opened.current = true;
    if (place) void open(place.position);
    else void source.tail();
  }, [begun]);
  // A link within the same log.
  useEffect(() => {
    if (!place || !source.loaded) return;
    if (source.entries.some((entry) => entry.position === place.position)) return;
    void open(place.position);
  }, [query.at]);

  const matches = query.show === "matches";
  const reveal = async (/** @type {number} */ position) => {
    follow(false);
    if (matches || source.entries.some((entry) => entry.position === position)) controls.current?.show(position);
    else await open(position);
  };
  const find = useMemo(() => (query.q ? new LogSearch(source, query.q) : null), [query.q]);
  const shown = matches && find ? find : source;
  const { hit, jump, step, keep } = useHits(find, matches, { position: range.from }, ({ position }) => void reveal(position));
  const show = (/** @type {boolean} */ only, /** @type {number} */ position = hit ? hit.position : range.from) => {
    keep({ position });
    setQuery({ show: only ? "matches" : "all", at: only ? "" : lineText({ node: log.node, attempt: log.attempt ?? source.attempt, position }), to: "" });
  };
  const to = Number(query.to);
  const marked = place && place.node === log.node ? { from: Math.min(place.position, to || place.position), to: Math.max(place.position, to || place.position) } : null;
  const linkOf = (/** @type {number} */ position) => withQuery({ at: lineText({ node: log.node, attempt: log.attempt ?? source.attempt, position }), to: "" });
  const onMark = (/** @type {import("./types.js").Entry} */ { position }, /** @type {boolean} */ isRange) => {
    follow(false);
    if (matches) show(false, position);
    else if (isRange && place) setQuery({ to: position }, { replace: true });
    else go(linkOf(position), { replace: true });
  };
  const copyLink = () => {
    void copy(absolute(marked || source.entries.length === 0 ? path() : linkOf(range.from)), say);
  };
  const problems = items.filter((item) => isProblem(item.state));
  const otherNode = (/** @type {number} */ step) => {
    if (problems.length === 0) return;
    const index = problems.findIndex((item) => item.node === log.node);
    go(logPath(ns, name, log.run, { node: problems[index < 0 ? 0 : (index + step + problems.length) % problems.length].node, uid: query.uid }));
  };
  const download = (/** @type {string} */ end, /** @type {Record<string, string | number>} */ how) => () => save(`executions/${log.uid}/${log.run}/${encodeURIComponent(log.node)}/log${search({ attempt: source.attempt || undefined, stream: stream === "both" ? undefined : stream, ...how })}`, `${name}-${log.run}-${log.node}.${end}`).then(() => say("Saved."), (error) => say(error instanceof Error ? error.message : "It could not be saved."));
  // What is on the screen needs no announcement.
  const late = source.late.filter(({ position }) => position < range.from);
  const toLate = () => {
    const [{ position }] = late;
    source.late = [];
    if (matches) return show(false, position);
    go(linkOf(position), { replace: true });
    void reveal(position);
  };
  const onShown = (/** @type {import("./types.js").Entry | undefined} */ first, /** @type {import("./types.js").Entry | undefined} */ end) => {
    source.late = source.late.filter(({ position }) => position < (first?.position ?? 0));
    if (first && end && "line" in first && "line" in end && (range.from !== first.position || range.to !== end.position)) setRange({ from: first.position, to: end.position, fromLine: first.line, toLine: end.line });
  };
  const timeOf = (/** @type {number} */ position) => {
    const micros = following ? 0 : source.entries.find((entry) => entry.position === position)?.atMicros;
    return micros ? `${new Date(Math.floor(micros / 1000)).toISOString()},${lineText({ node: log.node, attempt: source.attempt, position })}` : "";
  };
  const toTime = (/** @type {string} */ since) => {
    follow(false);
    void source.since(since).then((isShown) => {
      const first = source.entries.find((entry) => (entry.atMicros ?? 0) / 1000 >= Date.parse(since));
      if (isShown && first) controls.current?.show(first.position);
    });
  };
  useReadingKeys("Log", reading, copyLink, [
    { ...focusFilter, does: "Search" },
    { key: "n", does: "Next hit", run: () => step(1) },
    { key: "N", does: "Previous hit", run: () => step(-1) },
    { key: "m", does: "Matches only, and back", run: () => find && show(!matches) },
    { key: ":", does: "Go to a line or time", run: () => reading.ask("goto") },
    { key: "e", does: "Next node with a problem", run: () => otherNode(1) },
    { key: "E", does: "Previous node with a problem", run: () => otherNode(-1) },
    { key: "v", does: "Nodes", run: () => document.getElementById("log-node")?.querySelector("select")?.focus() },
  ]);
  const current = hit ? find?.hitIn(/** @type {import("./types.js").Entry} */ (hit)) : undefined;
  const error = source.error.value;
  const state = one?.state ?? "Pending";
  const last = source.ceiling < Infinity ? html`<li class="ours"><span class="n"></span><time></time><span></span><span class="t">What came later is not shown.</span></li>` : source.ended && hasEnded(state) ? html`<li class=${`ours ${look(state).tone}`}><span class="n"></span><time></time><span></span><span class="t"><${Icon} name=${look(state).icon} />${stateText(one ?? { state })}${one?.durationMs != null ? `, after ${span(one.durationMs)}` : ""}</span></li>` : null;
  return html`
    <div class="log-tools">
      <span id="log-node"><${Pick} label="Node" value=${log.node} options=${nodeOptions(items, log.node)} onPick=${(/** @type {string} */ node) => go(logPath(ns, name, log.run, { node, near: node ? "" : timeOf(range.from), q: query.q, stream, time, wrap: query.wrap, uid: query.uid }))} /></span>
      ${(one?.attempt ?? 1) > 1 && html`<${Pick} label="Attempt" value=${String(log.attempt)} options=${Array.from({ length: Math.min(50, one?.attempt ?? 1) }, (_, index) => [String((one?.attempt ?? 1) - index), `Attempt ${(one?.attempt ?? 1) - index}`])} onPick=${(/** @type {string} */ attempt) => setQuery({ attempt: attempt === String(one?.attempt) ? "" : attempt, at: "", to: "" })} />`}
      <${Streams} />
      <${Find} find=${find} hit=${current} onStep=${step} />
      ${find && html`<button type="button" class="btn" aria-pressed=${String(matches)} onClick=${() => show(!matches)}>Matches only</button>`}
      <${ReadingTools} reading=${reading} copyLink=${copyLink} />
    </div>
    <${Banner} source=${source} say=${say} />
    ${!begun ? html`<div class="log-wait"><${Empty}>${hasEnded(state) ? `${stateText(one ?? { state })}: the command did not start here.` : "Waiting for its turn."}</${Empty}></div>`
      : error ? html`<div class="log-wait"><${Failure} error=${error} what="This log could not be read" onRetry=${() => void source.tail()} /></div>`
      : source.loaded && source.entries.length === 0 && source.ended ? html`<div class="log-wait"><${Empty}>${rangeText() ? "This command wrote nothing at these times." : stream === "both" ? "This command wrote nothing." : `This command wrote nothing to ${stream}.`}</${Empty}></div>`
      : html`<div class=${`log size-${size.value}`}><${LogView} key=${shown === source} source=${shown} following=${following} onFollow=${follow} closed=${reading.closed} onFold=${reading.fold} time=${time} start=${Number.isNaN(start) ? at(one?.startedAt) : start} now=${time === "ago" ? now.value : 0} wrap=${wrap} marked=${marked} linkOf=${(/** @type {import("./types.js").Entry} */ entry) => linkOf(entry.position)} onMark=${onMark} controls=${controls} label=${`Output of ${log.node}`} last=${last} find=${find} hit=${current} onShown=${onShown} />
        ${find && !matches && html`<${Minimap} find=${find} source=${source} range=${{ from: range.fromLine - source.base + 1, to: range.toLine - source.base + 1 }} hit=${current} onHit=${jump} />`}</div>`}
    <div class="log-foot"><span>${matches && find ? `${plural(find.hits.length, "match", "matches")} in ${count(source.totalLines)} lines` : source.totalLines > 0 ? `Line ${count(range.fromLine)} to ${count(range.toLine)} of ${count(source.totalLines)}` : live && begun ? "No line yet" : ""}</span><span class="faint wide">${source.end > 0 ? bytes(source.end) : ""}</span><span class="grow" role="status">${reading.said}</span>
      ${late.length > 0 && html`<button type="button" class="btn" onClick=${toLate}><${Icon} name="late" />${plural(late.length, "line")} above ${late.length === 1 ? "is" : "are"} complete now</button>`}
      ${[["f", "follow"], ["n", "next hit"], ["m", "matches only"], [":", "go to line"], ["?", "all keys"]].map(([key, text]) => html`<span class="faint wide"><kbd>${key}</kbd> ${text}</span>`)}
      ${reading.isBehind && html`<${NewLines} lines=${reading.fresh} onClick=${reading.toLast} />`}</div>
    ${reading.asking === "goto" && html`<${GoTo} onClose=${close} onLine=${(/** @type {number} */ line) => void controls.current?.line(Math.max(1, line - source.base + 1))} onTime=${toTime} day=${at(one?.startedAt)} />`}
    ${reading.asking === "times" && html`<${Times} onClose=${close} day=${at(one?.startedAt)} />`}
    ${reading.asking === "download" && html`<${Download} onClose=${close} files=${[{ name: ".log", what: "as the command wrote it", run: download("log", {}) }, { name: ".txt", what: "with the time of each line", run: download("txt", { timestamps: "true" }) }, { name: ".jsonl", what: "records with times, streams and what was dropped; bytes in base64", run: download("jsonl", { format: "json" }) }]} />`}`;
}

/** Problems first, as everywhere. @param {Execution[]} items @param {string} node @returns {[string, string][]} */
function nodeOptions(items, node) {
  const some = items.slice(0, 2000);
  const all = some.some((item) => item.node === node) ? some : [...items.filter((item) => item.node === node), ...some];
  /** @type {[string, string][]} */
  const ones = all.map((item) => [item.node, `${item.node} · ${stateText(item)}`]);
  return items.length > 1 ? [["", "All nodes"], ...ones] : ones;
}
