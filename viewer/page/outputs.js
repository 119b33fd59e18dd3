// What the targets of a Run wrote, folded: one block for each different result. The operator groups by the digests of the
// exit records, problems first and the rarest before the others; the page reads a few lines of one node of each group.

import { html } from "./html.js";
import { bytes, count, plural } from "./format.js";
import { isProblem, look, stateText } from "./states.js";
import { logPath } from "./address.js";
import { ask, search } from "./api.js";
import { diff } from "./diff.js";
import { parse } from "./ansi.js";
import { Empty, Failure, Meter, Seg, State } from "./parts.js";
import { here } from "./route.js";
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

/** @param {Where & {loaded: ReturnType<typeof useOutputs>}} props */
export function Outputs({ loaded, ...where }) {
  const { state = "", equal = "stdout" } = here.value.query;
  const groups = loaded.data?.groups ?? [];
  const total = groups.reduce((all, group) => all + group.count, 0);
  const last = groups.at(-1);
  // Without one that more than half agree on, none is odd.
  const majority = last && !isProblem(last.outcome) && last.count * 2 > total && groups.length > 1 ? last : null;
  const base = useLines(majority && size(majority) <= COMPARED ? majority : null, where, true);
  if (!loaded.data) return loaded.error ? html`<${Failure} error=${loaded.error} what="The outputs could not be read" onRetry=${loaded.again} />` : html`<div aria-busy="true"></div>`;
  if (groups.length === 0) return html`<${Empty}>No node has ended yet.</${Empty}>`;
  const shown = state ? groups.filter((group) => group.outcome === state) : groups;
  return html`<div class="tools"><b>${plural(groups.length, "different result")}</b><span class="soft">from ${plural(total, "node")}</span><span class="grow"></span>
      <span class="soft wide">Equal by</span><${Seg} label="Equal by" name="equal" value=${equal} options=${["stdout", "stderr", "both"].map((value) => ({ value, text: value }))} /></div>
    ${shown.slice(0, MOST).map((group) => html`<${Block} key=${`${group.outcome} ${group.exitCode} ${group.node}`} group=${group} isMajority=${group === majority} base=${group === majority ? null : base} total=${total} where=${where} />`)}
    ${shown.length > MOST && html`<p class="faint more">and ${count(shown.length - MOST)} more.</p>`}`;
}

/** @param {{group: Group, isMajority: boolean, base: Lines | null, total: number, where: Where}} props */
function Block({ group, isMajority, base, total, where }) {
  const how = look(group.outcome);
  const odd = base !== null && !isProblem(group.outcome) && size(group) <= COMPARED;
  const lines = useLines(group, where, odd);
  const text = stateText({ state: group.outcome, exitCode: group.exitCode }) + (isMajority ? ", the majority" : odd ? ", differs" : "");
  const log = logPath(where.ns, where.name, where.number, { node: group.node });
  const nodes = group.count === 1 ? "node" : "nodes";
  return html`<div class="fold"><details open>
    <summary><span class="turn-mark"></span><span class="count"><span><b>${count(group.count)}</b> ${nodes}</span><${Meter} shares=${[{ name: group.outcome, look: how, count: group.count }]} total=${total} label="share of nodes" /></span>
      <${State} look=${how} text=${text} title=${group.message} /><span class="nodes cut-text" title=${group.nodes.slice(0, 2000)}>${group.nodes}</span><span class="side wide">${lines ? `${plural(lines.totalLines, "line")}, ` : ""}${bytes(size(group))}</span></summary>
    ${size(group) === 0 ? html`<p class="out soft"><span>No output came from ${group.count === 1 ? "this node" : "these nodes"}.${isProblem(group.outcome) && group.message ? ` Reason: ${group.message}.` : ""}</span></p>`
      : html`<pre class="out" tabindex="0" aria-label=${`Output of ${group.nodes.slice(0, 200)}`}>${lines && (odd && lines.next >= lines.end && base.next >= base.end ? html`<${Compared} base=${base} other=${lines} />` : html`<${Text} lines=${lines} problem=${isProblem(group.outcome)} />`)}</pre>`}
  </details><a class="link faint" href=${log} aria-label=${`log of ${group.node}`}>log</a></div>`;
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

/** @param {{base: Lines, other: Lines}} props */
const Compared = ({ base, other }) =>
  diff(textsOf(base), textsOf(other)).map((change) =>
    change.kind === "equal"
      ? html`<span class="skip-lines">${plural(change.lines.length, "equal line")}</span>`
      : html`<span class=${change.kind}>${visible(change.line.slice(0, change.from))}<b>${visible(change.line.slice(change.from, change.to))}</b>${visible(change.line.slice(change.to))}</span>`,
  );

/** Without colours, in which a difference would drown, and with names for what hides. @param {string} text */
const visible = (text) => parse(text).spans.map((span) => (span.title ? html`<span class="ctl" title=${span.title}>${span.text}</span>` : span.text));
