// The page of one node, with charts.

import { useEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { rateOf, seen } from "./figures.js";
import { ApiError } from "./api.js";
import { Failure, Note, useTitle } from "./parts.js";
import { here } from "./route.js";
import { connection, now } from "./live.js";
import { useKeys } from "./keys.js";
import { useNode } from "./load.js";
import { NodePanel } from "./node.js";

/** @typedef {import("./types.js").Node} Node */

/** What its network did between its last two samples: until it is heard again, that is how it is. @param {Node | null} node */
function useRate(node) {
  const last = useRef(/** @type {{node: Node | undefined, rate: ReturnType<typeof rateOf>}} */ ({ node: undefined, rate: null }));
  return useMemo(() => {
    const before = last.current.node?.name === node?.name ? last.current.node : undefined;
    if (node && node.lastHeardAt !== before?.lastHeardAt) last.current = { node, rate: rateOf(before, node) };
    return last.current.rate;
  }, [node]);
}

export function NodePage() {
  const { node: name } = here.value;
  useTitle(name);
  useKeys("Node", []);
  const { data, error, again } = useNode(name);
  const rate = useRate(data);
  const isUnknown = error instanceof ApiError && error.status === 404;
  return html`<main id="main" tabindex="-1" class=${connection.value.lost ? "aging" : ""}>
    <div class="head"><div class="crumbs"><a href="fleet">Fleet</a> /</div></div>
    ${isUnknown ? html`<div class="empty"><h1>There is no node ${name}</h1><p><a class="link" href="fleet">All nodes</a></p></div>`
      : data ? html`<div class="body node-page"><${NodePanel} seen=${seen(data, now.value, rate, data.asked)} Past=${Past} most=${30} /></div>`
      : error ? html`<${Failure} error=${error} what="The node could not be read" onRetry=${again} />`
      : html`<div aria-busy="true"></div>`}</main>`;
}

/** The last 15 minutes as charts, which come with a library. @param {import("./node.js").Past} props */
function Past({ samples, cores }) {
  const [loaded, setLoaded] = useState(/** @type {{Charts?: any, failed?: boolean}} */ ({}));
  useEffect(() => {
    import("./charts.js").then(({ Charts }) => setLoaded({ Charts }), () => setLoaded({ failed: true }));
  }, []);
  if (loaded.failed) return html`<${Note}>The charts could not be loaded.</${Note}>`;
  return loaded.Charts ? html`<${loaded.Charts} samples=${samples} cores=${cores} />` : html`<div class="charts-wait"></div>`;
}
