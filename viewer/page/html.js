// Markup in templates, without a compiler. What is put into one is text or an attribute, never HTML.

import { h } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

/** @typedef {import("./vendor/preact.js").ComponentChildren} Children */

export const html = htm.bind(h);
