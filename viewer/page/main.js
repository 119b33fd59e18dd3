// The page: which view an address shows.

import { render } from "./vendor/preact.js";
import { useEffect, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { refused, token } from "./api.js";
import { Frame } from "./frame.js";
import { Login, LoginDialog } from "./login.js";
import { Failure, useTitle } from "./parts.js";
import { go, here, path } from "./route.js";
import { synced } from "./live.js";
import { TasksPage } from "./tasks.js";

/** @type {Record<string, () => any>} */
let views = { tasks: TasksPage, missing: Missing };

/** The others, asked for at once: they are there before anyone clicks. */
const others = import("./views.js");

function App() {
  const { page } = here.value;
  const [failed, setFailed] = useState(false);
  const [, redraw] = useState(0);
  useEffect(() => {
    others.then(
      (module) => {
        views = { ...views, ...module.views };
        redraw((n) => n + 1);
      },
      () => setFailed(true),
    );
  }, []);
  const lockedOut = refused.value && !synced.value;
  useEffect(() => {
    if (lockedOut && page !== "login") go(`login?to=${encodeURIComponent(path())}`, { replace: true });
    if (!lockedOut && page === "login" && token.value) go("tasks", { replace: true });
  }, [lockedOut, page]);
  useEffect(() => {
    document.body.classList.toggle("page-log", page === "log");
  }, [page]);
  if (page === "login" || lockedOut) return html`<${Login} />`;
  const view = views[page];
  return html`<${Frame} />
    ${view ? html`<${view} key=${page} />`
      : failed ? html`<main id="main" tabindex="-1"><${Failure} error="The file did not arrive." what="This page could not be loaded" onRetry=${() => location.reload()} /></main>`
      : html`<main id="main" tabindex="-1" aria-busy="true"></main>`}
    <${LoginDialog} />`;
}

function Missing() {
  useTitle("Not found");
  return html`<main id="main" tabindex="-1"><div class="empty"><h1>There is no such page</h1><p><a class="link" href="tasks">Tasks</a>, <a class="link" href="fleet">Fleet</a> and <a class="link" href="history">History</a> are here.</p></div></main>`;
}

render(html`<${App} />`, /** @type {Element} */ (document.getElementById("app")));
