// The log of one node of a Run: live, from any line, with links that last.

import { useEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { at, bytes, count, coarse, span } from "./format.js";
import { hasEnded, isProblem, look, stateText } from "./states.js";
import { executionPath, lineText, logPath, parseLine, runPath, taskPath } from "./address.js";
import { unfold } from "./names.js";
import { save, search, token } from "./api.js";
import { Chip, Dialog, Empty, Failure, Icon, Note, Pick, Seg, copy, focusFilter, useTitle } from "./parts.js";
import { absolute, go, here, path, setQuery, withQuery } from "./route.js";
import { now } from "./live.js";
import { useKeys } from "./keys.js";
import { useExecutions } from "./load.js";
import { useUid } from "./execution.js";
import { LogSource } from "./log-source.js";
import { headsOf } from "./log-groups.js";
import { LogSearch } from "./log-search.js";
import { LogView, NewLines } from "./log-view.js";

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
  // One node at a time: the first one that is named, or the first that did not succeed.
  const wanted = place?.node ?? unfold(query.node ?? "")[0] ?? items?.[0]?.node ?? "";
  const one = items?.find((item) => item.node === wanted) ?? null;
  useTitle(`Log of ${wanted || name}, Run ${number} of ${ns}/${name}`);
  useEffect(() => {
    if (wanted && query.node !== wanted) setQuery({ node: wanted }, { replace: true });
  }, [wanted, query.node]);
  const head = html`<div class="log-head"><div class="crumbs"><a class="wide" href="tasks">Tasks</a><span class="wide">/</span> <a class="wide" href=${`tasks?ns=${encodeURIComponent(ns)}`}>${ns}</a><span class="wide">/</span> <a href=${taskPath(ns, name)}>${name}</a> / <a href=${runPath(ns, name, number)}>Run ${count(number)}</a> / ${wanted && html`<a href=${executionPath(ns, name, number, wanted)}>${wanted}</a> /`}</div><h1>Log</h1>${one && html`<${Chip} look=${look(one.state)} text=${stateText(one)} />`}<span class="grow"></span><span class="faint wide">times by the clock of the node</span></div>`;
  if (!uid || !items || !wanted) {
    return html`<main id="main" tabindex="-1">${head}<div class="log-wait">${missing ? html`<div class="empty"><h2>There is no Task ${ns}/${name}</h2></div>`
      : executions.error && !items ? html`<${Failure} error=${executions.error} what="The nodes of this Run could not be read" onRetry=${executions.again} />`
      : items && items.length === 0 ? html`<${Empty}>This Run had no node.</${Empty}>` : html`<div aria-busy="true"></div>`}</div></main>`;
  }
  // Without one it is the latest: when the next one begins, that is shown.
  const attempt = place?.attempt ?? ((Number(query.attempt) || one?.attempt) || null);
  const stream = query.stream ?? "both";
  return html`<main id="main" tabindex="-1">${head}<${OneLog} key=${`${uid}/${number}/${wanted}/${attempt ?? "latest"}/${stream}/${token.value}`} log=${{ uid, run: number, node: wanted, attempt, stream }} one=${one} items=${items} place=${place} start=${at(task?.status?.run?.startedAt)} /></main>`;
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
  const [asking, setAsking] = useState(false);
  const [said, say] = useState("");
  const [range, setRange] = useState({ from: 1, to: 1 });
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

  const reveal = async (/** @type {number} */ position) => {
    follow(false);
    if (!source.entries.some((entry) => entry.position === position)) await source.position(position);
    controls.current?.show(position);
  };
  const find = useMemo(() => (query.q ? new LogSearch(log, query.q, () => !source.ended) : null), [query.q]);
  useEffect(() => () => find?.close(), [find]);
  const [hit, setHit] = useState(-1);
  const step = (/** @type {number} */ by) => {
    if (!find || find.hits.length === 0) return;
    const at = hit >= 0 ? find.indexOf(hit) + by : find.indexOf(source.entries.find((entry) => "line" in entry && entry.line >= range.from)?.position ?? 0) - (by < 0 ? 1 : 0);
    const next = find.hits[(at + find.hits.length) % find.hits.length];
    setHit(next.position);
    void reveal(next.position);
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
  const onMark = (/** @type {number} */ position, /** @type {boolean} */ isRange) => {
    follow(false);
    if (isRange && place) setQuery({ to: position }, { replace: true });
    else go(linkOf(position), { replace: true });
  };
  const copyLink = () => {
    const entry = source.entries.find((other) => "line" in other && other.line >= range.from);
    void copy(absolute(marked || !entry ? path() : linkOf(entry.position)), say);
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
  const download = () => save(`executions/${log.uid}/${log.run}/${encodeURIComponent(log.node)}/log${search({ attempt: source.attempt || undefined, stream: stream === "both" ? undefined : stream })}`, `${name}-${log.run}-${log.node}.txt`).then(() => say("Saved."), (error) => say(error instanceof Error ? error.message : "It could not be saved."));
  const toEnd = () => (following ? follow(false) : controls.current?.end());
  useKeys("Log", [
    { ...focusFilter, does: "Search" },
    { key: "n", does: "Next hit", run: () => step(1) },
    { key: "N", does: "Previous hit", run: () => step(-1) },
    { key: "f", does: "Follow", run: toEnd },
    { key: ":", does: "Go to a line or time", run: () => setAsking(true) },
    { key: "d", does: "Next gap", run: () => void (controls.current?.gap(1) || say("No gap below, as far as it is read.")) },
    { key: "D", does: "Previous gap", run: () => void (controls.current?.gap(-1) || say("No gap above, as far as it is read.")) },
    { key: "e", does: "Next node with a problem", run: () => otherNode(1) },
    { key: "E", does: "Previous node with a problem", run: () => otherNode(-1) },
    { key: "Home", does: "First line", run: () => controls.current?.home() },
    { key: "End", does: "Last line", run: () => controls.current?.end() },
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
  const fresh = following ? 0 : Math.max(0, source.totalLines - seen);
  const error = source.error.value;
  const state = one?.state ?? "Pending";
  const last = source.ended && hasEnded(state) ? html`<li class=${`ours ${look(state).tone}`}><span class="n"></span><time></time><span></span><span class="t"><${Icon} name=${look(state).icon} />${stateText(one ?? { state })}${one?.durationMs != null ? `, after ${span(one.durationMs)}` : ""}</span></li>` : null;
  return html`
    <div class="log-tools">
      <span id="log-node"><${Pick} label="Node" value=${log.node} options=${nodeOptions(items, log.node)} onPick=${(/** @type {string} */ node) => go(logPath(ns, name, log.run, { node, stream, time, wrap: query.wrap, uid: query.uid }))} /></span>
      ${(one?.attempt ?? 1) > 1 && html`<${Pick} label="Attempt" value=${String(log.attempt)} options=${Array.from({ length: Math.min(50, one?.attempt ?? 1) }, (_, index) => [String((one?.attempt ?? 1) - index), `Attempt ${(one?.attempt ?? 1) - index}`])} onPick=${(/** @type {string} */ attempt) => setQuery({ attempt: attempt === String(one?.attempt) ? "" : attempt, at: "", to: "" })} />`}
      <${Seg} label="Streams" name="stream" value=${stream} replace options=${[{ value: "both", text: "Both" }, { value: "stdout", text: "stdout" }, { value: "stderr", text: "stderr" }]} />
      <${Find} find=${find} hit=${hit} onStep=${step} />
      <span class="grow"></span>
      <${Seg} label="Times" name="time" value=${time} replace options=${[{ value: "clock", text: "Time" }, { value: "ago", text: "Ago" }, { value: "start", text: "Since start" }]} />
      <button type="button" class="btn" aria-pressed=${String(wrap)} onClick=${() => setQuery({ wrap: wrap ? "" : "1" }, { replace: true })}>Wrap</button>
      <button type="button" class="btn" onClick=${copyLink}><${Icon} name="link" />Copy link</button>
      <button type="button" class="btn" onClick=${download}><${Icon} name="save" />Download</button>
      <button type="button" class="btn" aria-pressed=${String(following && live)} disabled=${!live} onClick=${toEnd}>Follow</button>
    </div>
    <${Banner} source=${source} say=${say} />
    ${!begun ? html`<div class="log-wait"><${Empty}>${hasEnded(state) ? `${stateText(one ?? { state })}: the command did not start here.` : "Waiting for its turn."}</${Empty}></div>`
      : error ? html`<div class="log-wait"><${Failure} error=${error} what="This log could not be read" onRetry=${() => void source.tail()} /></div>`
      : source.loaded && source.entries.length === 0 && source.ended ? html`<div class="log-wait"><${Empty}>${stream === "both" ? "This command wrote nothing." : `This command wrote nothing to ${stream}.`}</${Empty}></div>`
      : html`<${LogView} source=${source} following=${following && live} onFollow=${follow} closed=${closed} onFold=${fold} time=${time} start=${Number.isNaN(start) ? at(one?.startedAt) : start} now=${time === "ago" ? now.value : 0} wrap=${wrap} marked=${marked} linkOf=${linkOf} onMark=${onMark} controls=${controls} label=${`Output of ${log.node}`} last=${last} find=${find} hit=${hit} onShown=${(/** @type {number} */ from, /** @type {number} */ end) => (range.from !== from || range.to !== end) && setRange({ from, to: end })} />`}
    <div class="log-foot"><span>${source.totalLines > 0 ? `Line ${count(range.from)} to ${count(range.to)} of ${count(source.totalLines)}` : live && begun ? "No line yet" : ""}</span><span class="faint wide">${source.end > 0 ? bytes(source.end) : ""}</span><span class="grow" role="status">${said}</span>
      ${[["f", "follow"], ["n", "next hit"], ["d", "next gap"], [":", "go to line"], ["?", "all keys"]].map(([key, text]) => html`<span class="faint wide"><kbd>${key}</kbd> ${text}</span>`)}
      ${live && source.loaded && !following && html`<${NewLines} lines=${fresh} onClick=${() => controls.current?.end()} />`}</div>
    ${asking && html`<${GoToLine} onClose=${() => setAsking(false)} onLine=${(/** @type {number} */ line) => void controls.current?.line(line)} onTime=${(/** @type {string} */ since) => { follow(false); void source.since(since).then(() => { const first = source.entries.find((entry) => (entry.atMicros ?? 0) / 1000 >= Date.parse(since)); if (first) controls.current?.show(first.position); }); }} day=${at(one?.startedAt)} />`}`;
}

/** @param {{find: LogSearch | null, hit: number, onStep: (by: number) => void}} props */
function Find({ find, hit, onStep }) {
  const { q = "" } = here.value.query;
  const [text, setText] = useState(q);
  useEffect(() => setText(q), [q]);
  find?.version.value;
  const apply = () => setQuery({ q: text }, { replace: true });
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    if (text === q) onStep(event.shiftKey ? -1 : 1);
    else apply();
  };
  const some = find && find.hits.length > 0;
  const at = find && hit >= 0 ? `${count(find.indexOf(hit) + 1)} of ` : "";
  const said = !find || find.wrong ? "" : `${some ? at + count(find.hits.length) : find.complete ? "none" : ""}${find.complete ? "" : ` so far, ${Math.round(find.progress * 100)}%`}`;
  return html`<div class="field re find" role="search"><${Icon} name="find" /><label class="sr" for="filter">Search with a regular expression</label>
    <input id="filter" value=${text} placeholder="Search" spellcheck=${false} autocomplete="off" aria-invalid=${find?.wrong ? "true" : undefined} aria-describedby="find-said" onInput=${(/** @type {any} */ event) => setText(event.currentTarget.value)} onKeyDown=${onKey} onBlur=${() => text !== q && apply()} />
    <span class="faint" id="find-said" role="status">${said}</span>${some && html`<button type="button" class="btn quiet square" aria-label="Previous hit" onClick=${() => onStep(-1)}><${Icon} name="up" /></button><button type="button" class="btn quiet square" aria-label="Next hit" onClick=${() => onStep(1)}><${Icon} name="down" /></button>`}
    ${find?.wrong && html`<span class="error find-wrong" role="alert"><${Icon} name="failed" />${find.wrong}</span>`}</div>`;
}

/** Problems first, as everywhere. @param {Execution[]} items @param {string} node @returns {[string, string][]} */
function nodeOptions(items, node) {
  const some = items.slice(0, 2000);
  const all = some.some((item) => item.node === node) ? some : [...items.filter((item) => item.node === node), ...some];
  return all.map((item) => [item.node, `${item.node} · ${stateText(item)}`]);
}

/** That the connection is lost, for how long, and what happens next. @param {{source: LogSource, say: (text: string) => void}} props */
function Banner({ source, say }) {
  const stream = source.stream.value;
  const state = stream?.connection.value;
  const time = now.value && Date.now();
  const since = state && !state.live ? state.since : source.away.value;
  const lost = since > 0 && time - since > 2000;
  const before = useRef({ lost: false, lines: 0 });
  if (lost && !before.current.lost) before.current = { lost, lines: source.totalLines };
  useEffect(() => {
    if (lost || !before.current.lost) return;
    const came = source.totalLines - before.current.lines;
    before.current = { lost: false, lines: 0 };
    say(came > 0 ? `Connected again. ${count(came)} lines came meanwhile.` : "Connected again.");
  }, [lost, source.version.value]);
  if (!lost) return html`<div hidden></div>`;
  const wait = state?.retryAt ? Math.max(0, Math.ceil((state.retryAt - time) / 1000)) : 0;
  return html`<${Note} action=${html`<button type="button" class="btn" onClick=${() => stream?.retry()}>Try now</button>`}><b>Connection lost ${coarse(time - since)} ago.</b> ${wait > 0 ? `Trying again in ${wait} s.` : "Trying again now."} The command goes on, and no line will be missing here.</${Note}>`;
}

/** @param {{onClose: () => void, onLine: (line: number) => void, onTime: (since: string) => void, day: number}} props */
function GoToLine({ onClose, onLine, onTime, day }) {
  const [text, setText] = useState("");
  const [wrong, setWrong] = useState("");
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const line = /^[\d,]+$/.exec(text.trim());
    const clock = /^(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,3}))?)?$/.exec(text.trim());
    if (line) onLine(Math.max(1, Number(line[0].replace(/,/g, ""))));
    else if (clock) {
      const date = new Date(Number.isNaN(day) ? Date.now() : day);
      date.setHours(Number(clock[1]), Number(clock[2]), Number(clock[3] ?? 0), Number((clock[4] ?? "0").padEnd(3, "0")));
      onTime(date.toISOString());
    } else return setWrong("Write a number, such as 3,920, or a time, such as 12:03:01.");
    onClose();
  };
  return html`<${Dialog} title="Go to" onClose=${onClose}><form class="goto" onSubmit=${submit}><label class="field"><span class="sr">Line or time</span><input data-first value=${text} placeholder="Line or time" aria-invalid=${wrong ? "true" : undefined} onInput=${(/** @type {any} */ event) => setText(event.currentTarget.value)} /></label>
    ${wrong && html`<p class="bad" role="alert">${wrong}</p>`}<p class="tools end"><button type="button" class="btn" onClick=${onClose}>Close</button><button type="submit" class="btn solid">Go</button></p></form></${Dialog}>`;
}
