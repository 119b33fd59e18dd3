// The log of one node of a Run: live, from any line, with links that last.

import { useEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { at, bytes, count, plural, span } from "./format.js";
import { hasEnded, isProblem, look, stateText } from "./states.js";
import { executionPath, lineText, logPath, parseLine, runPath, taskPath } from "./address.js";
import { unfold } from "./names.js";
import { save, search, token } from "./api.js";
import { Chip, Empty, Failure, Icon, Pick, Seg, copy, focusFilter, useTitle } from "./parts.js";
import { absolute, go, here, path, setQuery, withQuery } from "./route.js";
import { now } from "./live.js";
import { useKeys } from "./keys.js";
import { useExecutions, useUid } from "./load.js";
import { LogSource } from "./log-source.js";
import { headsOf } from "./log-groups.js";
import { LogSearch } from "./log-search.js";
import { LogView, NewLines } from "./log-view.js";
import { MergedLog, MOST_NODES } from "./log-merged.js";
import { Banner, Download, Find, GoTo, Minimap, rangeText, resize, size, Sizes, Times } from "./log-tools.js";

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
  const [following, setFollowing] = useState(!place);
  const [seen, setSeen] = useState(0);
  const [closed, setClosed] = useState(/** @type {Set<number>} */ (new Set()));
  const [asking, setAsking] = useState(/** @type {"" | "goto" | "times" | "download"} */ (""));
  const [said, say] = useState("");
  const [range, setRange] = useState({ from: 0, to: 0, fromLine: 1, toLine: 1 });
  const controls = useRef(/** @type {import("./log-view.js").Controls | null} */ (null));
  const opened = useRef(false);
  const begun = (one?.attempt ?? 0) > 0;

  useEffect(() => () => source.close(), []);
  useEffect(() => {
    if (!begun || opened.current) return;
    opened.current = true;
    if (place) void source.position(place.position).then(() => controls.current?.show(place.position));
    else void source.tail();
  }, [begun]);
  // A link within the same log.
  useEffect(() => {
    if (!place || !source.loaded) return;
    if (source.entries.some((entry) => entry.position === place.position)) return;
    void source.position(place.position).then(() => controls.current?.show(place.position));
  }, [query.at]);
  useEffect(() => {
    const timer = said ? setTimeout(() => say(""), 4000) : 0;
    return () => clearTimeout(timer);
  }, [said]);

  const matches = query.show === "matches";
  const reveal = async (/** @type {number} */ position) => {
    follow(false);
    if (!matches && !source.entries.some((entry) => entry.position === position)) await source.position(position);
    controls.current?.show(position);
  };
  const find = useMemo(() => (query.q ? new LogSearch(source, query.q) : null), [query.q]);
  const shown = matches && find ? find : source;
  useEffect(() => () => find?.close(), [find]);
  const [hit, setHit] = useState(-1);
  // From the matches back to where one of them is, and the other way.
  const turned = useRef(matches);
  const context = useRef(-1);
  useEffect(() => {
    if (turned.current === matches) return;
    turned.current = matches;
    if (context.current >= 0) void reveal(context.current);
  }, [matches]);
  const show = (/** @type {boolean} */ only, /** @type {number} */ position = hit >= 0 ? hit : range.from) => {
    context.current = position;
    if (position >= 0) setHit(position);
    setQuery({ show: only ? "matches" : "all", at: only || position < 0 ? "" : lineText({ node: log.node, attempt: log.attempt ?? source.attempt, position }), to: "" });
  };
  const step = (/** @type {number} */ by) => {
    if (!find || find.hits.length === 0) return;
    const at = hit >= 0 ? find.indexOf(hit) + by : find.indexOf(range.from) - (by < 0 ? 1 : 0);
    jump(find.hits[(at + find.hits.length) % find.hits.length].position);
  };
  find?.version.value;
  source.version.value;
  const live = !source.ended;
  const follow = (/** @type {boolean} */ on) => {
    setFollowing(on && live);
    setSeen(source.totalLines);
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
  const turn = (/** @type {string} */ key, /** @type {string[]} */ list, /** @type {string} */ value) => setQuery({ [key]: list[(list.indexOf(value) + 1) % list.length] }, { replace: true });
  const foldAll = () => setClosed(closed.size > 0 ? new Set() : new Set(headsOf(source.entries)));
  const fold = (/** @type {number} */ position) => {
    const next = new Set(closed);
    if (!next.delete(position)) next.add(position);
    setClosed(next);
  };
  const download = (/** @type {string} */ end, /** @type {Record<string, string | number>} */ how) => () => save(`executions/${log.uid}/${log.run}/${encodeURIComponent(log.node)}/log${search({ attempt: source.attempt || undefined, stream: stream === "both" ? undefined : stream, ...how })}`, `${name}-${log.run}-${log.node}.${end}`).then(() => say("Saved."), (error) => say(error instanceof Error ? error.message : "It could not be saved."));
  const onShown = (/** @type {import("./types.js").Entry | undefined} */ first, /** @type {import("./types.js").Entry | undefined} */ end) => {
    if (first && end && "line" in first && "line" in end && (range.from !== first.position || range.to !== end.position)) setRange({ from: first.position, to: end.position, fromLine: first.line, toLine: end.line });
  };
  const jump = (/** @type {number} */ position) => {
    setHit(position);
    void reveal(position);
  };
  const close = () => setAsking("");
  const timeOf = (/** @type {number} */ position) => {
    const micros = following ? 0 : source.entries.find((entry) => entry.position === position)?.atMicros;
    return micros ? `${new Date(Math.floor(micros / 1000)).toISOString()},${lineText({ node: log.node, attempt: source.attempt, position })}` : "";
  };
  const toTime = (/** @type {string} */ since) => {
    follow(false);
    void source.since(since).then(() => {
      const first = source.entries.find((entry) => (entry.atMicros ?? 0) / 1000 >= Date.parse(since));
      if (first) controls.current?.show(first.position);
    });
  };
  const toLast = () => {
    setSeen(source.totalLines);
    controls.current?.end();
  };
  const toEnd = () => (following ? follow(false) : toLast());
  useKeys("Log", [
    { ...focusFilter, does: "Search" },
    { key: "n", does: "Next hit", run: () => step(1) },
    { key: "N", does: "Previous hit", run: () => step(-1) },
    { key: "f", does: "Follow", run: toEnd },
    { key: ":", does: "Go to a line or time", run: () => setAsking("goto") },
    { key: "m", does: "Matches only, and back", run: () => find && show(!matches) },
    { key: "r", does: "Times to show", run: () => setAsking("times") },
    { key: "+", does: "Larger text", run: () => resize(1) },
    { key: "-", does: "Smaller text", run: () => resize(-1) },
    { key: "d", does: "Next gap", run: () => void (controls.current?.gap(1) || say("No gap below, as far as it is read.")) },
    { key: "D", does: "Previous gap", run: () => void (controls.current?.gap(-1) || say("No gap above, as far as it is read.")) },
    { key: "e", does: "Next node with a problem", run: () => otherNode(1) },
    { key: "E", does: "Previous node with a problem", run: () => otherNode(-1) },
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
    { key: "v", does: "Nodes", run: () => document.getElementById("log-node")?.querySelector("select")?.focus() },
    { key: "z", does: "Close or open all groups", run: foldAll },
    { key: "y", does: "Copy a link", run: copyLink },
  ]);
  // Those that arrived while the reader was elsewhere stay announced when the log has ended.
  const fresh = following ? 0 : Math.max(0, source.totalLines - seen);
  const error = source.error.value;
  const state = one?.state ?? "Pending";
  const last = source.ceiling < Infinity ? html`<li class="ours"><span class="n"></span><time></time><span></span><span class="t">What came later is not shown.</span></li>` : source.ended && hasEnded(state) ? html`<li class=${`ours ${look(state).tone}`}><span class="n"></span><time></time><span></span><span class="t"><${Icon} name=${look(state).icon} />${stateText(one ?? { state })}${one?.durationMs != null ? `, after ${span(one.durationMs)}` : ""}</span></li>` : null;
  return html`
    <div class="log-tools">
      <span id="log-node"><${Pick} label="Node" value=${log.node} options=${nodeOptions(items, log.node)} onPick=${(/** @type {string} */ node) => go(logPath(ns, name, log.run, { node, near: node ? "" : timeOf(range.from), stream, time, wrap: query.wrap, uid: query.uid }))} /></span>
      ${(one?.attempt ?? 1) > 1 && html`<${Pick} label="Attempt" value=${String(log.attempt)} options=${Array.from({ length: Math.min(50, one?.attempt ?? 1) }, (_, index) => [String((one?.attempt ?? 1) - index), `Attempt ${(one?.attempt ?? 1) - index}`])} onPick=${(/** @type {string} */ attempt) => setQuery({ attempt: attempt === String(one?.attempt) ? "" : attempt, at: "", to: "" })} />`}
      <${Seg} label="Streams" name="stream" value=${stream} replace options=${[{ value: "both", text: "Both" }, { value: "stdout", text: "stdout" }, { value: "stderr", text: "stderr" }]} />
      <${Find} find=${find} hit=${hit} onStep=${step} />
      ${find && html`<button type="button" class="btn" aria-pressed=${String(matches)} onClick=${() => show(!matches)}>Matches only</button>`}
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
    ${!begun ? html`<div class="log-wait"><${Empty}>${hasEnded(state) ? `${stateText(one ?? { state })}: the command did not start here.` : "Waiting for its turn."}</${Empty}></div>`
      : error ? html`<div class="log-wait"><${Failure} error=${error} what="This log could not be read" onRetry=${() => void source.tail()} /></div>`
      : source.loaded && source.entries.length === 0 && source.ended ? html`<div class="log-wait"><${Empty}>${rangeText() ? "This command wrote nothing at these times." : stream === "both" ? "This command wrote nothing." : `This command wrote nothing to ${stream}.`}</${Empty}></div>`
      : html`<div class=${`log size-${size.value}`}><${LogView} key=${shown === source} source=${shown} following=${following && live} onFollow=${follow} closed=${closed} onFold=${fold} time=${time} start=${Number.isNaN(start) ? at(one?.startedAt) : start} now=${time === "ago" ? now.value : 0} wrap=${wrap} marked=${marked} linkOf=${(/** @type {import("./types.js").Entry} */ entry) => linkOf(entry.position)} onMark=${onMark} controls=${controls} label=${`Output of ${log.node}`} last=${last} find=${find} hit=${hit} onShown=${onShown} />
        ${find && !matches && html`<${Minimap} find=${find} source=${source} range=${{ from: range.fromLine - source.base + 1, to: range.toLine - source.base + 1 }} hit=${hit} onHit=${jump} />`}</div>`}
    <div class="log-foot"><span>${matches && find ? `${plural(find.hits.length, "match", "matches")} in ${count(source.totalLines)} lines` : source.totalLines > 0 ? `Line ${count(range.fromLine)} to ${count(range.toLine)} of ${count(source.totalLines)}` : live && begun ? "No line yet" : ""}</span><span class="faint wide">${source.end > 0 ? bytes(source.end) : ""}</span><span class="grow" role="status">${said}</span>
      ${[["f", "follow"], ["n", "next hit"], ["m", "matches only"], [":", "go to line"], ["?", "all keys"]].map(([key, text]) => html`<span class="faint wide"><kbd>${key}</kbd> ${text}</span>`)}
      ${(live || (seen > 0 && fresh > 0)) && source.loaded && !following && html`<${NewLines} lines=${fresh} onClick=${toLast} />`}</div>
    ${asking === "goto" && html`<${GoTo} onClose=${close} onLine=${(/** @type {number} */ line) => void controls.current?.line(Math.max(1, line - source.base + 1))} onTime=${toTime} day=${at(one?.startedAt)} />`}
    ${asking === "times" && html`<${Times} onClose=${close} day=${at(one?.startedAt)} />`}
    ${asking === "download" && html`<${Download} onClose=${close} files=${[{ name: ".log", what: "as the command wrote it", run: download("log", {}) }, { name: ".txt", what: "with the time of each line", run: download("txt", { timestamps: "true" }) }, { name: ".jsonl", what: "records with times, streams and what was dropped; bytes in base64", run: download("jsonl", { format: "json" }) }]} />`}`;
}

/** Problems first, as everywhere. @param {Execution[]} items @param {string} node @returns {[string, string][]} */
function nodeOptions(items, node) {
  const some = items.slice(0, 2000);
  const all = some.some((item) => item.node === node) ? some : [...items.filter((item) => item.node === node), ...some];
  /** @type {[string, string][]} */
  const ones = all.map((item) => [item.node, `${item.node} · ${stateText(item)}`]);
  return items.length > 1 ? [["", "All nodes"], ...ones] : ones;
}
