// What the targets of a Run wrote, folded: one block for each different result. The operator groups by the digests of the
// exit records, problems first and the rarest before the others; the page reads a few lines of one node of each group.

import { html } from "./html.js";
import { bytes, count, lower, plural, spaced } from "./format.js";
import { isProblem, look, stateText } from "./states.js";
import { logPath } from "./address.js";
import { ask, search } from "./api.js";
import { changes, wroteTheSame } from "./compare.js";
import { diff } from "./diff.js";
import { parse } from "./ansi.js";
import { fold } from "./names.js";
import { Empty, Failure, Meter, Pick, Seg, State } from "./parts.js";
import { here, setQuery } from "./route.js";
import { useLoad } from "./load.js";

/** @typedef {import("./types.js").OutputGroup} Group */
/** @typedef {import("./types.js").Lines} Lines */
/** @typedef {{uid: string, number: number, ns: string, name: string}} Where */

/** Lines of a block that is a problem, and of one that is not. */
const LAST = 8;
const FIRST = 12;

/** Blocks at most; the rest is one line. */
const MOST = 20;

/** Outputs up to this size are compared. */
const COMPARED = 64 << 10;

/** @param {string | undefined} uid @param {number | null} number @param {string} equal @param {{active: boolean, version: unknown}} state @returns {import("./load.js").Loaded<{groups: Group[], ended: number, pending: number}>} */
export const useOutputs = (uid, number, equal, { active, version }) =>
  useLoad(uid && number ? `outputs ${uid}/${number}/${equal}` : null, (abort) => ask(`runs/${uid}/${number}/outputs${search({ equal })}`, { signal: abort }), { version, every: active ? 3000 : 0 });

/** @param {Group} group */
const size = ({ stdout, stderr }) => stdout.bytes + stderr.bytes;

/** @param {Group | null} group @param {Where} where @param {boolean} whole */
function useLines(group, { uid, number }, whole) {
  const window = whole ? { line: 1, count: 1000 } : group && isProblem(group.outcome) ? { tail: LAST } : { line: 1, count: FIRST };
  const path = group && size(group) > 0 ? `executions/${uid}/${number}/${encodeURIComponent(group.node)}/lines${search({ attempt: group.attempt, ...window })}` : null;
  // The digests are in the key: the same output is not read again.
  const loaded = useLoad(path && `${path} ${group?.stdout.sha256} ${group?.stderr.sha256}`, (abort) => ask(path ?? "", { signal: abort }));
  return /** @type {Lines | null} */ (loaded.data);
}

/** The number in `against=run:2`. @param {string | undefined} text */
const runOf = (text) => Number(/^run:([1-9]\d{0,9})$/.exec(text ?? "")?.[1] ?? 0);

/** What it is compared with: the majority, or another Run. @param {{runs: import("./types.js").RunStatus[], number: number, against: number}} props */
function Against({ runs, number, against }) {
  const others = new Map(runs.map((run) => [run.number, run.verdict ? `, ${lower(spaced(run.verdict))}` : ""]));
  for (const other of [number - 1, against]) if (other > 0 && !others.has(other)) others.set(other, "");
  others.delete(number);
  if (others.size === 0) return null;
  const sorted = [...others].sort(([a], [b]) => b - a).map(([other, verdict]) => /** @type {[string, string]} */ ([`run:${other}`, `Run ${count(other)}${verdict}${other === number - 1 ? " (the one before)" : ""}`]));
  return html`<span class="soft wide">Compare with</span><${Pick} label="Compare with" value=${against ? `run:${against}` : ""} options=${[["", "the majority"], ...sorted]} onPick=${(/** @type {string} */ value) => setQuery({ against: value })} />`;
}

/** @param {Where & {loaded: ReturnType<typeof useOutputs>, runs: import("./types.js").RunStatus[]}} props */
export function Outputs({ loaded, runs, ...where }) {
  const { state = "", equal = "stdout" } = here.value.query;
  const against = runOf(here.value.query.against);
  const groups = loaded.data?.groups ?? [];
  const total = groups.reduce((all, group) => all + group.count, 0);
  const last = groups.at(-1);
  // Without one that more than half agree on, none is odd.
  const majority = last && !isProblem(last.outcome) && last.count * 2 > total && groups.length > 1 ? last : null;
  const base = useLines(majority && size(majority) <= COMPARED ? majority : null, where, true);
  if (!loaded.data) return loaded.error ? html`<${Failure} error=${loaded.error} what="The outputs could not be read" onRetry=${loaded.again} />` : html`<div aria-busy="true"></div>`;
  if (groups.length === 0) return html`<${Empty}>No node has ended yet.</${Empty}>`;
  const shown = state ? groups.filter((group) => group.outcome === state) : groups;
  const shownBlocks = shown.slice(0, MOST).map((group) => html`<${Block} key=${`${group.outcome} ${group.exitCode} ${group.node}`} group=${group} isMajority=${group === majority} base=${group === majority ? null : base} total=${total} where=${where} />`);
  return html`<div class="tools"><b>${plural(groups.length, "different result")}</b><span class="soft">from ${plural(total, "node")}</span><span class="grow"></span>
      <span class="soft wide">Equal by</span><${Seg} label="Equal by" name="equal" value=${equal} options=${["stdout", "stderr", "both"].map((value) => ({ value, text: value }))} /><${Against} runs=${runs} number=${where.number} against=${against} /></div>
    ${against ? html`<${Comparison} key=${against} groups=${shown} state=${state} equal=${equal} against=${against} pending=${loaded.data.pending} total=${total} where=${where} />` : shownBlocks}
    ${!against && shown.length > MOST && html`<p class="faint more">and ${count(shown.length - MOST)} more.</p>`}`;
}

/** @param {{group: Group, isMajority: boolean, base: Lines | null, total: number, where: Where}} props */
function Block({ group, isMajority, base, total, where }) {
  const how = look(group.outcome);
  const odd = base !== null && !isProblem(group.outcome) && size(group) <= COMPARED;
  const lines = useLines(group, where, odd);
  const compared = odd && lines && lines.next >= lines.end && base.next >= base.end ? diff(textsOf(base), textsOf(lines)) : null;
  const differ = compared ? Math.max(compared.filter(({ kind }) => kind === "add").length, compared.filter(({ kind }) => kind === "del").length) : 0;
  const text = stateText({ state: group.outcome, exitCode: group.exitCode }) + (isMajority ? ", the majority" : odd ? ", differs" : "");
  const log = logPath(where.ns, where.name, where.number, { node: group.node });
  const nodes = group.count === 1 ? "node" : "nodes";
  return html`<div class="fold"><details open>
    <summary><span class="turn-mark"></span><span class="count"><span><b>${count(group.count)}</b> ${nodes}</span><${Meter} shares=${[{ name: group.outcome, look: how, count: group.count }]} total=${total} label="share of nodes" /></span>
      <${State} look=${how} text=${text} title=${group.message} /><span class="nodes cut-text" title=${group.nodes.slice(0, 2000)}>${group.nodes}</span><span class="side wide">${differ > 0 ? `${plural(differ, "line")} ${differ === 1 ? "differs" : "differ"}` : `${lines ? `${plural(lines.totalLines, "line")}, ` : ""}${bytes(size(group))}`}</span></summary>
    ${size(group) === 0 ? html`<p class="out soft"><span>No output came from ${group.count === 1 ? "this node" : "these nodes"}.${isProblem(group.outcome) && group.message ? ` Reason: ${group.message}.` : ""}</span></p>`
      : html`<pre class="out" tabindex="0" role="region" aria-label=${`Output of ${group.nodes.slice(0, 200)}`}>${lines && (compared ? html`<${Compared} changes=${compared} />` : html`<${Text} lines=${lines} problem=${isProblem(group.outcome)} />`)}</pre>`}
  </details><a class="link faint" href=${log} aria-label=${`log of ${group.node}`}>log</a></div>`;
}

/** Each change from another Run to this one. @param {{groups: Group[], state: string, equal: string, against: number, pending: number, total: number, where: Where}} props */
function Comparison({ groups, state, equal, against, pending, total, where }) {
  const other = useOutputs(where.uid, against, equal, { active: false, version: 0 });
  if (!other.data) return other.error ? html`<${Failure} error=${other.error} what=${`Run ${against} could not be read`} onRetry=${other.again} />` : html`<div aria-busy="true"></div>`;
  const { changed, same, added, gone } = changes(groups, other.data.groups, equal);
  const name = `Run ${count(against)}`;
  const some = (/** @type {string[]} */ nodes, /** @type {string} */ what) => nodes.length > 0 && html`<p class="soft">${plural(nodes.length, "node")} ${what}: <span class="mono">${fold(nodes).slice(0, 2000)}</span></p>`;
  return html`${changed.slice(0, MOST).map((change) => html`<${Change} key=${`${change.now.node} ${change.then.node}`} change=${change} against=${against} total=${total} where=${where} />`)}
    ${changed.length > MOST && html`<p class="faint more">and ${count(changed.length - MOST)} more.</p>`}
    <section class="compared"><p class="soft">${same === 0 ? `No node did the same as in ${name}.` : `${plural(same, "node")} did the same as in ${name}.`}</p>
      ${some(added, `had no result in ${name}`)}${!state && pending === 0 && some(gone, `had a result in ${name} only`)}${pending > 0 && html`<p class="soft">${plural(pending, "node")} ${pending === 1 ? "has" : "have"} not ended.</p>`}</section>`;
}

/** The first lines of a node in a Run. @param {Where} where @param {number} number @param {string} node @param {Group} group @returns {Lines | null} */
function useWhole({ uid }, number, node, group) {
  const path = size(group) > 0 && size(group) <= COMPARED ? `executions/${uid}/${number}/${encodeURIComponent(node)}/lines?line=1&count=1000` : null;
  return useLoad(path && `${path} ${group.stdout.sha256} ${group.stderr.sha256}`, (abort) => ask(path ?? "", { signal: abort })).data;
}

/** @param {{change: import("./compare.js").Changed, against: number, total: number, where: Where}} props */
function Change({ change: { now, then, nodes }, against, total, where }) {
  const [node] = nodes;
  const after = useWhole(where, where.number, node, now);
  const before = useWhole(where, against, node, then);
  const how = look(now.outcome);
  const was = stateText({ state: then.outcome, exitCode: then.exitCode });
  const is = stateText({ state: now.outcome, exitCode: now.exitCode });
  const same = wroteTheSame(now, then);
  const empty = /** @type {Lines} */ ({ attempt: 0, lines: [], next: 0, totalLines: 0, end: 0, ended: true });
  const [base, other] = [size(then) > 0 ? before : empty, size(now) > 0 ? after : empty];
  const whole = base && other && base.next >= base.end && other.next >= other.end;
  const large = size(now) > COMPARED || size(then) > COMPARED || (base && other && !whole);
  return html`<div class="fold"><details open>
    <summary><span class="turn-mark"></span><span class="count"><span><b>${count(nodes.length)}</b> ${nodes.length === 1 ? "node" : "nodes"}</span><${Meter} shares=${[{ name: now.outcome, look: how, count: nodes.length }]} total=${total} label="share of nodes" /></span>
      <${State} look=${how} text=${is} title=${now.message} /><span class="nodes cut-text" title=${fold(nodes).slice(0, 2000)}>${fold(nodes)}</span><span class="side">${was === is ? "output differs" : `was ${lower(was)}`}</span></summary>
    ${same ? html`<p class="out soft"><span>Its output is the same as in Run ${count(against)}.</span></p>`
      : large ? html`<p class="out soft"><span>The outputs differ. They are too long to be compared here: ${bytes(size(then))} then, ${bytes(size(now))} now.</span></p>`
      : html`<pre class="out" tabindex="0" role="region" aria-label=${`What ${node} wrote in Run ${against} and in Run ${where.number}`}>${whole && html`<${Compared} changes=${diff(textsOf(base), textsOf(other))} />`}</pre>`}
  </details><a class="link faint" href=${logPath(where.ns, where.name, where.number, { node })} aria-label=${`log of ${node}`}>log</a></div>`;
}

/** @param {{lines: Lines, problem: boolean}} props */
function Text({ lines, problem }) {
  const shown = problem ? lines.lines.slice(-LAST) : lines.lines.slice(0, FIRST);
  const left = lines.totalLines - shown.filter((entry) => "text" in entry && !entry.continues).length;
  const more = left > 0 && html`<span class="skip-lines">${plural(left, "line")} ${problem ? "before" : "more"}</span>`;
  return html`${problem && more}${shown.map((entry) =>
    "text" in entry ? html`<span>${entry.stream === "stderr" && html`<abbr class="e" title="stderr">e</abbr>`}${parse(entry.text).spans.map((span) => html`<span class=${span.cls} title=${span.title}>${span.text}</span>`)}${" "}</span>`
      : html`<span class="lost skip-lines">${count(entry.dropped)} bytes dropped here: ${entry.reason}</span>`)}${!problem && more}`;
}

/** @param {Lines} lines */
const textsOf = ({ lines }) => lines.map((entry) => ("text" in entry ? entry.text : `[${entry.dropped} bytes dropped]`));

/** @param {{changes: import("./diff.js").Change[]}} props */
const Compared = ({ changes: all }) =>
  all.map((change) =>
    change.kind === "equal"
      ? html`<span class="skip-lines">${plural(change.lines.length, "equal line")}</span>`
      : html`<span class=${change.kind}>${visible(change.line.slice(0, change.from))}<b>${visible(change.line.slice(change.from, change.to))}</b>${visible(change.line.slice(change.to))}</span>`,
  );

/** Without colours, in which a difference would drown, and with names for what hides. @param {string} text */
const visible = (text) => parse(text).spans.map((span) => (span.title ? html`<span class="ctl" title=${span.title}>${span.text}</span>` : span.text));
