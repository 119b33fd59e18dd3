// When each target ran: above, those that did not succeed or were tried again, by name; below, all in the order of their
// start. A bar is an Attempt.

import { useMemo } from "./vendor/hooks.js";
import { html } from "./html.js";
import { at, clock, count, plural, span } from "./format.js";
import { hasEnded, isProblem, look, stateText } from "./states.js";
import { executionPath } from "./address.js";
import { cut } from "./names.js";
import { Icon, Panel, useWidth } from "./parts.js";
import { go } from "./route.js";
import { now } from "./live.js";
import { useAttempts } from "./load.js";
import { barsOf, wasTried } from "./attempts.js";

/** @typedef {import("./types.js").Execution} Execution */
/** @typedef {import("./attempts.js").Bar} Bar */

/** Below this there is no room for the words of states. */
const NARROW = 640;
/** Most named lanes. */
const MOST = 60;
/** Height of all bars together, at most. */
const TALL = 560;

/** Steps of the axis, ms. */
const STEPS = [100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000, 7_200_000, 21_600_000, 86_400_000];

/** @param {{items: Execution[], run?: import("./types.js").RunStatus | null, uid: string | undefined, ns: string, name: string, number: number}} props */
export function Timeline({ items, run, uid, ns, name, number }) {
  const active = items.some((one) => !hasEnded(one.state));
  const time = active ? now.value : 0;
  const problems = items.filter((one) => isProblem(one.state));
  const others = items.filter((one) => wasTried(one) && !isProblem(one.state));
  const named = [...problems, ...others].slice(0, MOST);
  const attempts = useAttempts(uid, number, named.filter(wasTried));
  const { from, to, ordered } = useMemo(() => extent(items, run, attempts, time), [items, run, attempts, time]);
  const open = (/** @type {Execution} */ one, attempt = one.attempt) => go(executionPath(ns, name, number, one.node, { attempt: attempt === one.attempt ? "" : attempt }));
  const [area, width] = useWidth();
  if (ordered.length === 0) return html`<p class="soft tools">No command has started.</p>`;
  const scale = { from, to, width: Math.max(width, 200), names: width < NARROW ? 100 : 210 };
  return html`<div ref=${area}></div>${named.length > 0 && html`<${Panel} title=${titleOf(problems.length, others.length)} side="each attempt is a bar"><${Named} lanes=${named.map((one) => ({ one, bars: barsOf(one, attempts, time) }))} scale=${scale} onOpen=${open} time=${time} /></${Panel}>`}
    <${Panel} title=${items.length === 1 ? "The node" : `All ${plural(items.length, "node")} in the order of their start`} side=${html`<span class="legend"><span class="off"><${Icon} name="waiting" />waiting</span><span class="run"><${Icon} name="running" />running</span><span class="ok"><${Icon} name="ok" />ended</span></span>`}>
      <${All} lanes=${ordered} scale=${scale} time=${time} onOpen=${open} waiting=${items.length - ordered.length} /></${Panel}>`;
}

/** @param {number} problems @param {number} others */
function titleOf(problems, others) {
  const again = others > 0 ? `${problems > 0 ? count(others) : plural(others, "node")} that ${others === 1 ? "was" : "were"} tried again` : "";
  return [problems > 0 ? `${plural(problems, "node")} that did not succeed` : "", again].filter(Boolean).join(", ");
}

/** @typedef {{from: number, to: number, width: number, names: number}} Scale */

/** @typedef {{one: Execution, bars: Bar[]}} Lane */
/** @typedef {(one: Execution, attempt?: number) => void} Open */

/** @param {Execution[]} items @param {import("./types.js").RunStatus | null | undefined} run @param {import("./attempts.js").Attempts} attempts @param {number} time */
function extent(items, run, attempts, time) {
  const ordered = items.map((one) => ({ one, bars: barsOf(one, attempts, time) })).filter(({ bars }) => bars.length > 0).sort((a, b) => a.bars[0].from - b.bars[0].from);
  let from = at(run?.startedAt);
  let to = time;
  for (const { bars } of ordered) {
    // Clocks of nodes differ: a bar may begin before its Run.
    if (Number.isNaN(from) || bars[0].from < from) from = bars[0].from;
    to = Math.max(to, bars[bars.length - 1].to);
  }
  return { from, to: Math.max(to, from + 10), ordered };
}

/** @param {number} ms @param {Scale} scale @param {number} left */
const place = (ms, { from, to, width }, left) => left + ((ms - from) / (to - from)) * (width - left - 2);

/** The bars of a lane, and between them how long it waited. @param {{lane: Lane, scale: Scale, left: number, y: number, height: number, least: number, time: number, onOpen: Open}} props */
function Bars({ lane: { one, bars }, scale, left, y, height, least, time, onOpen }) {
  const thin = Math.max(0.5, height / 3);
  const waits = bars.map(({ from }, index) => [index === 0 ? scale.from : bars[index - 1].to, from]);
  if (time > 0 && !hasEnded(one.state) && one.state !== "Running") waits.push([bars.at(-1)?.to ?? scale.from, time]);
  const onBar = (/** @type {number} */ attempt) => (/** @type {Event} */ event) => {
    event.stopPropagation();
    onOpen(one, attempt);
  };
  return html`${waits.map(([from, to]) => {
    const x = Math.max(left, place(from, scale, left));
    const width = place(to, scale, left) - x;
    return width > 1 && html`<rect class="wait" x=${x} y=${y + (height - thin) / 2} width=${width} height=${thin} />`;
  })}${bars.map(({ attempt, state, from, to, text }) => {
    const x = place(from, scale, left);
    return html`<rect class=${look(state).tone} x=${x} y=${y} width=${Math.max(least, place(to, scale, left) - x)} height=${height} rx=${height > 4 ? 1 : 0} onClick=${onBar(attempt)}><title>${text}</title></rect>`;
  })}`;
}

/** In words. @param {Lane} lane */
const laneText = ({ one, bars }) => `${one.node}, ${stateText(one)}${one.durationMs != null ? `, ${span(one.durationMs)}` : ""}${bars.length > 1 ? `, ${plural(bars.length, "attempt")}` : ""}`;

/** @param {{lanes: Lane[], scale: Scale, onOpen: Open, time: number}} props */
function Named({ lanes, scale, onOpen, time }) {
  const { names } = scale;
  return html`<svg class="lanes" viewBox=${`0 0 ${scale.width} ${lanes.length * 18 + 6}`} role="list" aria-label="Nodes that did not succeed, or were tried again">
    ${lanes.map((lane, index) => {
      const { one } = lane;
      const y = index * 18 + 5;
      const { icon, tone } = look(one.state);
      return html`<g role="listitem" key=${one.node}><g class="lane" role="link" tabindex="0" onClick=${() => onOpen(one)} onKeyDown=${(/** @type {KeyboardEvent} */ event) => event.key === "Enter" && onOpen(one)}>
        <title>${laneText(lane)}</title>
        <rect class="hit" x="0" y=${y - 3} width=${scale.width} height="18" /><text aria-hidden="true" class="mono" x="0" y=${y + 10}>${cut(one.node, 11)}</text><svg class=${`i ${tone}`} x="80" y=${y - 1} width="13" height="13"><${Icon} name=${icon} /></svg>${names > 150 && html`<text aria-hidden="true" x="100" y=${y + 10}>${stateText(one)}</text>`}
        <${Bars} lane=${lane} scale=${scale} left=${names} y=${y} height=${11} least=${2} time=${time} onOpen=${onOpen} /></g></g>`;
    })}</svg>`;
}

/** Where there are more lanes than pixels, one stands for several, and the worst of them is seen. @param {Lane[]} lanes @param {number} per @returns {(Lane & {count: number})[]} */
function joined(lanes, per) {
  if (per === 1) return lanes.map((lane) => ({ ...lane, count: 1 }));
  const found = [];
  for (let index = 0; index < lanes.length; index += per) {
    const group = lanes.slice(index, index + per);
    const { one } = group.reduce((a, b) => (look(b.one.state).rank < look(a.one.state).rank ? b : a));
    const bars = group.flatMap((lane) => lane.bars);
    const whole = { attempt: one.attempt, state: one.state, text: "", from: Math.min(...bars.map(({ from }) => from)), to: Math.max(...bars.map(({ to }) => to)) };
    found.push({ one, bars: [whole], count: group.length });
  }
  return found;
}

/** @param {{lanes: Lane[], scale: Scale, time: number, onOpen: Open, waiting: number}} props */
function All({ lanes, scale, time, onOpen, waiting }) {
  const pitch = Math.max(1, Math.min(18, Math.floor((TALL / lanes.length) * 2) / 2));
  const shown = joined(lanes, Math.max(1, Math.ceil(lanes.length / (TALL / pitch))));
  const left = pitch >= 18 ? scale.names : 0;
  const height = shown.length * pitch;
  const step = STEPS.find((ms) => (scale.to - scale.from) / ms <= scale.width / 120) ?? STEPS[STEPS.length - 1];
  const ticks = Array.from({ length: Math.floor((scale.to - scale.from) / step) + 1 }, (_, index) => index * step);
  const bar = Math.max(0.8, pitch * (pitch > 4 ? 0.7 : 0.82));
  return html`<svg class="lanes" viewBox=${`0 0 ${scale.width} ${height + 28}`} role="img" aria-label=${`${plural(lanes.length, "lane")}, one for each node in the order of their start`}>
    ${ticks.map((ms) => {
      const x = place(scale.from + ms, scale, left);
      return html`<path class="grid" d=${`M${x.toFixed(1)} 20V${height + 26}`} />${x < scale.width - 60 && html`<text x=${x + 4} y="12">${ms === 0 ? clock(scale.from) : `+${span(ms).replace(" s", "s").replace(" ms", "ms")}`}</text>`}`;
    })}
    ${shown.map((lane, index) => {
      const { one, count: several } = lane;
      const y = 24 + index * pitch;
      return html`<g class="lane" key=${one.node} onClick=${() => onOpen(one)}><title>${several > 1 ? `${one.node} and ${several - 1} more, ${stateText(one)}` : laneText(lane)}</title>
        <rect class="hit" x="0" y=${y} width=${scale.width} height=${pitch} />${left > 0 && html`<text class="mono" x="0" y=${y + 12}>${cut(one.node, left > 150 ? 28 : 13)}</text>`}
        <${Bars} lane=${lane} scale=${scale} left=${left} y=${y} height=${bar} least=${1.5} time=${time} onOpen=${onOpen} /></g>`;
    })}
    ${time > 0 && html`<path class="now" d=${`M${place(time, scale, left).toFixed(1)} 20V${height + 26}`} />`}</svg>
    ${waiting > 0 && html`<p class="faint">${plural(waiting, "node")} not started.</p>`}`;
}
