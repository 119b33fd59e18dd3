// How people read a log, be it of one node or of all: they follow it or not, close groups, go through it by keys, and choose
// how it is shown.

import { useEffect, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { Icon, Seg } from "./parts.js";
import { here, setQuery } from "./route.js";
import { useKeys } from "./keys.js";
import { headsOf } from "./log-groups.js";
import { rangeText, resize, Sizes } from "./log-tools.js";

/** @typedef {"" | "goto" | "times" | "download" | "nodes"} Asking */
/** @typedef {ReturnType<typeof useReading>} Reading */

/** @param {{ended: boolean, loaded: boolean, totalLines: number, entries: import("./types.js").Entry[], version: import("./vendor/signals.js").Signal<number>}} source @param {boolean} follows whether it does at first */
export function useReading(source, follows) {
  const [isFollowed, setFollowed] = useState(follows);
  /** Lines that there were when the reader left the end. */
  const [seen, setSeen] = useState(/** @type {number | null} */ (null));
  const [closed, setClosed] = useState(/** @type {Set<number>} */ (new Set()));
  const [asking, ask] = useState(/** @type {Asking} */ (""));
  const [said, say] = useState("");
  const controls = useRef(/** @type {import("./log-view.js").Controls | null} */ (null));
  useEffect(() => {
    const timer = said ? setTimeout(() => say(""), 4000) : 0;
    return () => clearTimeout(timer);
  }, [said]);
  source.version.value;
  useEffect(() => {
    if (seen === null && source.loaded) setSeen(source.totalLines);
  });
  const live = !source.ended;
  const following = isFollowed && live;
  const follow = (/** @type {boolean} */ on) => {
    setFollowed(on && live);
    setSeen(source.totalLines);
  };
  const toLast = () => {
    setSeen(source.totalLines);
    controls.current?.end();
  };
  const toEnd = () => (following ? follow(false) : toLast());
  const fold = (/** @type {number} */ position) => {
    const next = new Set(closed);
    if (!next.delete(position)) next.add(position);
    setClosed(next);
  };
  const foldAll = () => setClosed(closed.size > 0 ? new Set() : new Set(headsOf(source.entries)));
  // Those that arrived while the reader was elsewhere stay announced when the log has ended.
  const fresh = isFollowed ? 0 : Math.max(0, source.totalLines - (seen ?? source.totalLines));
  const isBehind = source.loaded && !isFollowed && (live || fresh > 0);
  return { live, following, follow, toLast, toEnd, fresh, isBehind, closed, fold, foldAll, asking, ask, close: () => ask(""), said, say, controls };
}

/** @param {string} name @param {string[]} values @param {string} value */
const turn = (name, values, value) => setQuery({ [name]: values[(values.indexOf(value) + 1) % values.length] }, { replace: true });

const toggleWrap = () => setQuery({ wrap: here.peek().query.wrap === "1" ? "" : "1" }, { replace: true });

/** @param {string} where @param {Reading} reading @param {() => void} copyLink @param {import("./keys.js").Key[]} others */
export function useReadingKeys(where, { controls, toEnd, toLast, foldAll, ask, say }, copyLink, others) {
  const { time = "clock", stream = "both" } = here.value.query;
  useKeys(where, [
    ...others,
    { key: "f", does: "Follow", run: toEnd },
    { key: "r", does: "Times to show", run: () => ask("times") },
    { key: "+", does: "Larger text", run: () => resize(1) },
    { key: "-", does: "Smaller text", run: () => resize(-1) },
    { key: "d", does: "Next gap", run: () => void (controls.current?.gap(1) || say("No gap below, as far as it is read.")) },
    { key: "D", does: "Previous gap", run: () => void (controls.current?.gap(-1) || say("No gap above, as far as it is read.")) },
    { key: "Home", does: "First line", run: () => controls.current?.home() },
    { key: "End", does: "Last line", run: toLast },
    { key: " ", does: "Next page", run: (event) => controls.current?.page(event.shiftKey ? -1 : 1) },
    { key: "PageDown", does: "Next page", run: () => controls.current?.page(1) },
    { key: "PageUp", does: "Previous page", run: () => controls.current?.page(-1) },
    { key: "ArrowDown", does: "Next line", run: () => controls.current?.by(1) },
    { key: "ArrowUp", does: "Previous line", run: () => controls.current?.by(-1) },
    { key: "j", does: "Next line", run: () => controls.current?.by(1) },
    { key: "k", does: "Previous line", run: () => controls.current?.by(-1) },
    { key: "w", does: "Wrap", run: toggleWrap },
    { key: "t", does: "Times", run: () => turn("time", ["clock", "ago", "start"], time) },
    { key: "s", does: "Streams", run: () => turn("stream", ["both", "stdout", "stderr"], stream) },
    { key: "z", does: "Close or open all groups", run: foldAll },
    { key: "y", does: "Copy a link", run: copyLink },
  ]);
}

export const Streams = () => html`<${Seg} label="Streams" name="stream" value=${here.value.query.stream ?? "both"} replace options=${[{ value: "both", text: "Both" }, { value: "stdout", text: "stdout" }, { value: "stderr", text: "stderr" }]} />`;

/** How the lines are shown, and what is done with them. @param {{reading: Reading, copyLink: () => void}} props */
export function ReadingTools({ reading: { live, following, toEnd, ask }, copyLink }) {
  const { time = "clock", wrap } = here.value.query;
  return html`<span class="grow"></span>
    <button type="button" class="btn" aria-pressed=${String(rangeText() !== "")} onClick=${() => ask("times")}>${rangeText() || "All times"}</button>
    <${Seg} label="Times" name="time" value=${time} replace options=${[{ value: "clock", text: "Time" }, { value: "ago", text: "Ago" }, { value: "start", text: "Since start" }]} />
    <${Sizes} />
    <button type="button" class="btn" aria-pressed=${String(wrap === "1")} onClick=${toggleWrap}>Wrap</button>
    <button type="button" class="btn square" aria-label="Copy a link" title="Copy a link (y)" onClick=${copyLink}><${Icon} name="link" /></button>
    <button type="button" class="btn" onClick=${() => ask("download")}><${Icon} name="save" />Download…</button>
    <button type="button" class="btn" aria-pressed=${String(following)} disabled=${!live} onClick=${toEnd}>Follow</button>`;
}
