// The Task that is being written. The object is the truth; a field of the form is a view of one path in it, so that what
// has no field is kept. Pure.

/** @typedef {Record<string, any>} Draft */

/** @param {string} path */
const steps = (path) => path.split(".");

/** @param {Draft} draft @param {string} path @returns {any} */
export function get(draft, path) {
  let value = /** @type {any} */ (draft);
  for (const step of steps(path)) value = value?.[step];
  return value;
}

/**
 * A copy with this value there; `undefined` removes the field, and what holds nothing else.
 *
 * @param {Draft} draft @param {string} path @param {unknown} value @returns {Draft}
 */
export function set(draft, path, value) {
  const [step, ...rest] = steps(path);
  const copy = { ...draft };
  const inner = rest.length > 0 ? set(isMap(copy[step]) ? copy[step] : {}, rest.join("."), value) : value;
  if (inner === undefined || (rest.length > 0 && isMap(inner) && Object.keys(inner).length === 0)) delete copy[step];
  else copy[step] = inner;
  return copy;
}

/** @param {unknown} value @returns {value is Record<string, unknown>} */
const isMap = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** @returns {Draft} */
export const blank = () => ({
  apiVersion: "sentinelnode.dev/v1alpha1",
  kind: "Task",
  metadata: { name: "", namespace: "default" },
  spec: { targets: {}, run: { command: [] } },
});

/** What people wrote in a Task: without its status, and without what the cluster fills in. @param {Draft} task @returns {Draft} */
export function ofTask(task) {
  const { name, namespace, labels, annotations } = task.metadata ?? {};
  const kept = Object.entries(annotations ?? {}).filter(([key]) => !/^(sentinelnode\.dev\/(cancel|rerun)|kubectl\.kubernetes\.io\/.*)$/.test(key));
  const metadata = { name, namespace, ...(labels ? { labels } : {}), ...(kept.length > 0 ? { annotations: Object.fromEntries(kept) } : {}) };
  return { apiVersion: blank().apiVersion, kind: "Task", metadata, spec: withoutDefaults(structuredClone(task.spec ?? {}), DEFAULTS) };
}

/** What the API fills in where nothing is written. */
const DEFAULTS = {
  onChange: "Finish", onRecreate: "Run", rerunToken: "", suspend: false,
  retry: { limit: 0, causes: ["Failed", "Signaled", "TimedOut", "IdleTimedOut", "OomKilled"], backoff: { initial: "1s", max: "1m", factor: 2 } },
  rollout: { maxConcurrent: "100%" },
  timeouts: { grace: "10s", start: "5m", unreachable: "5m" },
  targets: { all: false, controlPlane: "Exclude", exclude: {} },
  run: { env: [], environment: "Container", leftovers: "End", limits: {}, stdin: "", successExitCodes: [0], umask: "022", workingDir: "/", output: { limit: "1Gi", mask: true, maxBlock: "30s", merge: false, spool: "64Mi" } },
};

/** @param {Draft} value @param {Draft} defaults @returns {Draft} */
function withoutDefaults(value, defaults) {
  for (const [key, usual] of Object.entries(defaults)) {
    const here = value[key];
    if (isMap(here) && isMap(usual)) {
      withoutDefaults(here, usual);
      if (Object.keys(here).length === 0) delete value[key];
    } else if (here === null || JSON.stringify(here) === JSON.stringify(usual)) {
      delete value[key];
    }
  }
  return value;
}

/** What decides whether saving begins a new Run. @param {Draft} draft */
export const runsAnew = (draft) => JSON.stringify([draft.spec?.targets, draft.spec?.run, draft.spec?.rerunToken]);

/** @typedef {{field: string, value: string, allowed: string}} Problem */

/** What the server said, as a list. @param {{field?: string | null, value?: string | null, allowed?: string | null, message: string, problems?: Problem[]}} body @returns {Problem[]} */
export function problemsOf(body) {
  if (body.problems?.length) return body.problems;
  return body.field ? [{ field: body.field, value: body.value ?? "", allowed: body.allowed ?? body.message }] : [];
}

/** Problems at a path or below it. @param {Problem[]} problems @param {string} path */
export const problemsAt = (problems, path) => problems.filter(({ field }) => field === path || field.startsWith(`${path}.`) || field.startsWith(`${path}[`));

/** `Must be a duration of 1s to 8760h, such as 5m.` @param {Problem} problem */
export function problemText({ allowed }) {
  const text = allowed.charAt(0).toUpperCase() + allowed.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** A number stays a number, `25%` a text. @param {string} text */
export const numberOrText = (text) => (text === "" ? undefined : /^\d{1,9}$/.test(text) ? Number(text) : text);

/** @typedef {{name: string, value?: string, valueFrom?: {secretKeyRef: {name: string, key: string, optional?: boolean}}}} Variable */

/** The value of a key of a Secret, as it is written in the form: `secretKeyRef:db/password`, with `?` if it may be missing. */
const SECRET = /^secretKeyRef:([-.a-z0-9]+)\/([-._a-zA-Z0-9]+)(\?)?$/;

/** @param {string} text @returns {Variable[] | undefined} */
export function environment(text) {
  const found = text.split("\n").filter((line) => line.trim() !== "").map((line) => {
    const equals = line.indexOf("=");
    const [variable, value] = [(equals < 0 ? line : line.slice(0, equals)).trim(), equals < 0 ? "" : line.slice(equals + 1)];
    const [, name, key, optional] = SECRET.exec(value) ?? [];
    if (name === undefined || key === undefined) return { name: variable, value };
    return { name: variable, valueFrom: { secretKeyRef: { name, key, ...(optional ? { optional: true } : {}) } } };
  });
  return found.length > 0 ? found : undefined;
}

/** @param {Variable} variable */
const valueText = ({ value = "", valueFrom }) => {
  const secret = valueFrom?.secretKeyRef;
  return secret ? `secretKeyRef:${secret.name}/${secret.key}${secret.optional ? "?" : ""}` : value;
};

/** @param {Variable[] | undefined} env */
export const environmentText = (env) => (env ?? []).map((variable) => `${variable.name}=${valueText(variable)}`).join("\n");

/** What runs in one line. @param {Draft | undefined} run */
export function commandText(run) {
  if (run?.script) {
    const text = String(run.script.text ?? "").split("\n").map((line) => line.trim()).filter((line) => line && !line.startsWith("#")).join("; ");
    return `${run.script.interpreter ?? "/bin/sh"} · ${text}`;
  }
  return (run?.command ?? []).map((/** @type {string} */ word) => (/^[\w./:=,@%+-]+$/.test(word) ? word : `'${word.replace(/\s*\n\s*/g, "; ").replace(/'/g, "'\\''")}'`)).join(" ");
}
