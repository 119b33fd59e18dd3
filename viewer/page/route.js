// Where the page is, and how it goes elsewhere.

import { signal } from "./vendor/signals.js";
import { parse, queryText } from "./address.js";

const base = new URL(document.baseURI).pathname;

const read = () => parse(location.pathname.startsWith(base) ? location.pathname.slice(base.length) : location.pathname.slice(1), location.search);

/** The address that is shown. */
export const here = signal(read());

addEventListener("popstate", () => {
  here.value = read();
});

/** @param {string} path below the base path @param {{replace?: boolean}} [how] */
export function go(path, { replace = false } = {}) {
  const url = base + path;
  if (url === location.pathname + location.search) return;
  if (replace) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
  const before = here.peek();
  here.value = read();
  if (before.page !== here.peek().page) scrollTo(0, 0);
}

/** The path of this view. */
export const path = () => location.pathname.slice(base.length) + location.search;

/** The address of this view with changes in its query. @param {Record<string, string | number | null | undefined>} changes */
export const withQuery = (changes) => location.pathname.slice(base.length) + queryText(here.value.query, changes);

/** Filters and tabs are entries of the browser's history; what follows by itself replaces. @param {Record<string, string | number | null | undefined>} changes @param {{replace?: boolean}} [how] */
export const setQuery = (changes, how) => go(withQuery(changes), how);

/** For people to copy. @param {string} path */
export const absolute = (path) => location.origin + base + path;

// Links of the page change the view without loading it anew. Those that people open elsewhere are left to the browser.
addEventListener("click", (event) => {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = /** @type {Element} */ (event.target).closest?.("a[href]");
  if (!(link instanceof HTMLAnchorElement) || link.target || link.hasAttribute("download")) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || !url.pathname.startsWith(base) || url.pathname.startsWith(`${base}api/`)) return;
  event.preventDefault();
  // With a base, `#main` would be a place on another page.
  if (link.getAttribute("href")?.startsWith("#")) document.getElementById(url.hash.slice(1))?.focus();
  else go(url.pathname.slice(base.length) + url.search);
});
