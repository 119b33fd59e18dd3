// Signing in: a token, which stays in this tab.

import { useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { AUTHORIZATION, refused, signIn, token } from "./api.js";
import { ownPath } from "./address.js";
import { Cell, Dialog, Icon, useTitle } from "./parts.js";
import { go, here } from "./route.js";

/** @param {{onDone: () => void, onCancel?: () => void}} props */
function TokenForm({ onDone }) {
  const [text, setText] = useState("");
  const [only, setOnly] = useState("");
  const [isLimited, setIsLimited] = useState(false);
  const [wrong, setWrong] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const given = text.trim();
    if (given === "") return setWrong("Paste a token here.");
    // A header holds only these; `fetch` would throw and say nothing that helps.
    if (!/^[\x21-\x7e]+$/.test(given)) return setWrong("A token has no spaces and no other alphabets.");
    setBusy(true);
    setWrong("");
    try {
      const namespace = only.trim();
      const where = namespace ? `&namespace=${encodeURIComponent(namespace)}` : "";
      const response = await fetch(`api/v1/tasks?limit=1${where}`, { headers: { [AUTHORIZATION]: `Bearer ${given}` }, cache: "no-store" });
      if (response.status === 401) setWrong("This token is not valid here.");
      else if (response.status === 403) {
        setIsLimited(true);
        setWrong(namespace ? `This token may not list Tasks in the namespace ${namespace}.` : "This token may not list Tasks in all namespaces. Name one.");
      } else if (response.status === 400) setWrong("That is not the name of a namespace.");
      else if (!response.ok) setWrong(`The operator answered ${response.status}. Try again.`);
      else {
        signIn(given, namespace);
        onDone();
      }
    } catch {
      setWrong("The operator does not answer. Try again.");
    }
    setBusy(false);
  };
  return html`<form onSubmit=${submit}>
    <label for="token">Token</label>
    <textarea class="code" id="token" rows="4" spellcheck=${false} autocomplete="off" data-first aria-describedby="token-help" aria-invalid=${wrong ? "true" : undefined} value=${text} onInput=${(/** @type {any} */ event) => setText(event.currentTarget.value)} onKeyDown=${(/** @type {KeyboardEvent} */ event) => event.key === "Enter" && submit(event)}></textarea>
    ${isLimited && html`<label class="field"><span>Namespace</span><input spellcheck=${false} autocomplete="off" value=${only} onInput=${(/** @type {any} */ event) => setOnly(event.currentTarget.value)} /></label>`}
    ${wrong && html`<p class="error" role="alert"><${Icon} name="failed" />${wrong}</p>`}
    <p class="faint" id="token-help">In a cluster <code>kubectl create token</code> makes one; <code>sentinel dev</code> prints where its own is. This page keeps it in memory: after a reload it asks again.</p>
    <button class="btn solid" type="submit" disabled=${busy}>Sign in</button></form>`;
}

/** A whole page: nothing was seen before. */
export function Login() {
  useTitle("Sign in");
  const done = () => go(ownPath(here.peek().query.to), { replace: true });
  return html`<main id="main" tabindex="-1" class="page-login">
    <div class="door">
      <span class="brand"><${Icon} name="mark" cls="mark-icon" />Sentinel Node</span>
      <div><h1>Sign in</h1><p class="soft">The API here asks for a token.</p></div>
      <${TokenForm} onDone=${done} />
    </div>
    <div class="scene" aria-hidden="true"><${Scene} /></div></main>`;
}

/** The session ended: what is on the page stays. */
export function LoginDialog() {
  if (!refused.value || !token.value) return null;
  return html`<${Dialog} title="Sign in again" onClose=${() => {}}><p class="soft">The token is not valid any more. What is on the page stays.</p><${TokenForm} onDone=${() => {}} /></${Dialog}>`;
}

/** A Run that spreads over a fleet, drawn once. */
function Scene() {
  const cells = [];
  for (let y = 0; y < 22; y += 1) {
    for (let x = 0; x < 28; x += 1) {
      const noise = ((x * 7919 + y * 104729 + x * y * 31) % 97) / 97;
      const way = Math.hypot((x - 13.5) / 1.25, y - 10.5) + noise * 4;
      const state = way < 9 ? (noise > 0.975 ? "Lost" : "Succeeded") : way < 11.5 ? (noise < 0.03 ? "Failed" : "Running") : "Pending";
      cells.push(html`<${Cell} state=${state} x=${x * 22} y=${y * 22} size=${10} />`);
    }
  }
  return html`<svg class="cells" viewBox="-1 -1 606 476">${cells}</svg>`;
}
