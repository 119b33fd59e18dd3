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

/** @type {Record<string, () => any>} Views that are there, by the page of the address. */
const views = { tasks: TasksPage, missing: Missing };

/** @type {Record<string, () => Promise<() => any>>} How the others are loaded. */
const sources = {
  task: () => import("./task.js").then((module) => module.TaskPage),
  log: () => import("./log.js").then((module) => module.LogPage),
  execution: () => import("./execution.js").then((module) => module.ExecutionPage),
  fleet: () => import("./fleet.js").then((module) => module.FleetPage),
  node: () => import("./node-page.js").then((module) => module.NodePage),
  history: () => import("./history.js").then((module) => module.HistoryPage),
  form: () => import("./form.js").then((module) => module.FormPage),
};

/** @param {string} page Of the address. */
async function load(page) {
  views[page] ??= await sources[page]();
}

/** Loads what people open next, so that it is there before they click. */
async function loadOthers() {
  for (const page of Object.keys(sources)) await load(page);
}

function App() {
  const { page } = here.value;
  const [failed, setFailed] = useState("");
  const [, redraw] = useState(0);
  useEffect(() => {
    // Another file that does not arrive is asked for again when its view is opened.
    const rest = () => loadOthers().catch(() => {});
    if (!(page in sources)) return void rest();
    load(page).then(
      () => {
        redraw((n) => n + 1);
        rest();
      },
      () => setFailed(page),
    );
  }, [page]);
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
      : failed === page ? html`<main id="main" tabindex="-1"><${Failure} error="The file did not arrive." what="This page could not be loaded" onRetry=${() => location.reload()} /></main>`
      : html`<main id="main" tabindex="-1" aria-busy="true"></main>`}
    <${LoginDialog} />`;
}

function Missing() {
  useTitle("Not found");
  return html`<main id="main" tabindex="-1"><div class="empty"><h1>There is no such page</h1><p><a class="link" href="tasks">Tasks</a>, <a class="link" href="fleet">Fleet</a> and <a class="link" href="history">History</a> are here.</p></div></main>`;
}

render(html`<${App} />`, /** @type {Element} */ (document.getElementById("app")));
