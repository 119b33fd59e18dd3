// The question whether a Run that waits for an approval may begin: what it runs, where, and who asked.

import { useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { count, plural } from "./format.js";
import { commandText } from "./draft.js";
import { ask, search } from "./api.js";
import { Confirm, Facts } from "./parts.js";

/** @typedef {import("./types.js").Task} Task */
/** @typedef {import("./types.js").AwaitingApproval} AwaitingApproval */

/** Characters of a digest that people compare. */
const SHORT = 12;

/** What a Task waits for; none while the operator has not seen its last change, which would be shown and not approved. @param {Task} task @returns {AwaitingApproval | null} */
export const awaited = ({ metadata, status }) => (status?.observedGeneration === metadata.generation ? status?.awaitingApproval ?? null : null);

/** @param {{task: Task, awaiting: AwaitingApproval, onClose: () => void}} props */
export function Approve({ task, awaiting, onClose }) {
  const { namespace, name } = task.metadata;
  const { run, specHash, targetsDigest, targetCount, firstTargets = [], requestedBy = [], ceiling } = awaiting;
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const approve = async () => {
    setBusy(true);
    try {
      await ask(`tasks/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}/approve${search({ run, specHash, targetsDigest })}`, { method: "POST" });
      onClose();
    } catch (failed) {
      setError(failed instanceof Error ? failed.message : String(failed));
      setBusy(false);
    }
  };
  const more = targetCount - firstTargets.length;
  return html`<${Confirm} title=${`Approve Run ${count(run)} of ${namespace}/${name}?`} text=${`It runs on ${plural(targetCount, "node")} once it is approved, by another person than asked for it.`} keep="Not now" act=${`Approve Run ${count(run)}`} error=${error} busy=${busy} onClose=${onClose} onAct=${approve}>
    <pre class="plain" tabindex="0">${commandText(task.spec.run)}</pre>
    <${Facts} facts=${[
      ["Nodes", `${firstTargets.join(", ")}${more > 0 ? ` and ${count(more)} more` : ""}`],
      ["Requested by", requestedBy.join(", ")],
      ["Runs as", `${task.spec.run?.user ?? "the agent's user"} ${task.spec.run?.environment === "Host" ? "on the host" : "in the container"}`],
      ["Ceiling", ceiling],
      ["Spec", html`<code title=${specHash}>${specHash.slice(0, SHORT)}</code>`],
      ["Targets", html`<code title=${targetsDigest}>${targetsDigest.slice(0, SHORT)}</code>`],
    ]} /></${Confirm}>`;
}
