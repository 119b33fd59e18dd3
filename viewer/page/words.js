// Sentences about how a command ended, present tense and only what is known. Pure.

import { count, plural, spaced, span } from "./format.js";

/** @typedef {import("./types.js").Execution} Execution */

/** As whom a command runs: without a user as the agent does, unless its sandbox keeps it from that. @param {Record<string, any> | undefined} run */
export function userOf(run) {
  const sandbox = run?.sandbox ?? (run?.environment === "Host" ? "Baseline" : "Restricted");
  return run?.user ?? (sandbox === "Restricted" ? "user 65534" : "the agent's user");
}

/** @param {string | undefined} text */
export function sentence(text) {
  if (!text) return "";
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

/**
 * @param {Execution} execution
 * @param {Record<string, any>} spec of its Task, where that is still the same
 */
export function whatHappened(execution, spec = {}) {
  const { state, exitCode, attempt, message, details } = execution;
  const exit = details?.exit;
  const clock = exit?.clock;
  const ended = exit?.killed ? "It ended only at KILL." : exit?.signalName ? `It ended at ${exit.signalName.replace(/^SIG/, "")}.` : "";
  const times = attempt > 1 ? ` in attempt ${count(attempt)}` : "";
  switch (state) {
    case "Pending":
      return message ? sentence(message) : "Waiting for its turn.";
    case "WaitingForNode":
      return message ? sentence(message) : "Waiting for the node, whose agent is not connected.";
    case "Dispatched":
      return "Sent to the node. It has not started yet.";
    case "Running":
      return attempt > 1 ? `Running, attempt ${count(attempt)}.` : "Running.";
    case "Succeeded":
      return exitCode ? `The command exited with code ${exitCode}, which counts as success.` : `The command succeeded${times}.`;
    case "Failed":
      return `The command exited with code ${exitCode ?? "unknown"}${times}.`;
    case "Signaled":
      return `The command was ended by ${exit?.signalName ?? (details?.signal ? `signal ${details.signal}` : "a signal")} that the agent did not send.`;
    case "TimedOut":
      return `Ran longer than ${clock ? span(clock.afterMs) : spec.timeouts?.run ?? "allowed"}${clock?.field === "timeouts.total" ? ", the time of the whole Run" : ""}. ${ended}`.trim();
    case "IdleTimedOut":
      return `No output for ${spec.timeouts?.idle ?? (clock ? span(clock.afterMs) : "too long")}. ${ended}`.trim();
    case "OomKilled":
      return `Used more than ${spec.run?.limits?.memory ? limitText(spec.run.limits.memory) : "its memory"}. The kernel killed it.`;
    case "Lost":
      return `${sentence(message)} Whether the command ended is not known.`.trim();
    case "Interrupted":
      return sentence(message) || "The command was cut off and did not run to its end.";
    case "NotStarted":
      return "The Run was stopped before this node had its turn.";
    default:
      return sentence(message) || spaced(state);
  }
}

/** `256Mi` as `256 MiB`. @param {string} text */
export function limitText(text) {
  const found = /^(\d+)(Ki|Mi|Gi|Ti)$/.exec(String(text));
  return found ? `${found[1]} ${found[2]}B` : String(text);
}

/** @param {{count: number, fate: string, processes?: {pid: number, name: string}[]} | null | undefined} left */
export function leftText(left) {
  if (!left || left.count === 0) return "no process";
  const names = (left.processes ?? []).map(({ pid, name }) => `${name} (${pid})`).join(", ");
  return `${plural(left.count, "process", "processes")}, ${left.fate === "Kept" ? "left running" : "ended"}${names ? `: ${names}` : ""}`;
}
