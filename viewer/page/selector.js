// Labels of nodes: selectors as people write them, and the filter of the fleet. Pure.

/** @typedef {{key: string, operator: "In" | "NotIn" | "Exists" | "DoesNotExist", values?: string[]}} Requirement */
/** @typedef {{matchLabels?: Record<string, string>, matchExpressions?: Requirement[]}} Selector */

/**
 * `key=value, key in (a, b), !key`.
 *
 * @param {string} text
 * @returns {{selector: Selector, wrong: string | null}}
 */
export function parseSelector(text) {
  /** @type {Record<string, string>} */
  const labels = {};
  /** @type {Requirement[]} */
  const expressions = [];
  const key = "([\\w./-]+)";
  for (const piece of text.match(/(?:[^,()]|\([^)]*\)?)+/g) ?? []) {
    const part = piece.trim();
    if (part === "") continue;
    let found;
    if ((found = new RegExp(`^${key}\\s*==?\\s*([\\w.-]*)$`).exec(part))) labels[found[1]] = found[2];
    else if ((found = new RegExp(`^${key}\\s*!=\\s*([\\w.-]*)$`).exec(part))) expressions.push({ key: found[1], operator: "NotIn", values: [found[2]] });
    else if ((found = new RegExp(`^${key}\\s+(in|notin)\\s*\\(([^)]*)\\)$`).exec(part))) {
      const values = found[3].split(",").map((value) => value.trim()).filter(Boolean);
      expressions.push({ key: found[1], operator: found[2] === "in" ? "In" : "NotIn", values });
    } else if ((found = new RegExp(`^!\\s*${key}$`).exec(part))) expressions.push({ key: found[1], operator: "DoesNotExist" });
    else if ((found = new RegExp(`^${key}$`).exec(part))) expressions.push({ key: found[1], operator: "Exists" });
    else return { selector: {}, wrong: `“${part}” is none of key=value, key in (a, b), key and !key` };
  }
  return { selector: compact(labels, expressions), wrong: null };
}

/** @param {Record<string, string>} labels @param {Requirement[]} expressions @returns {Selector} */
function compact(labels, expressions) {
  return {
    ...(Object.keys(labels).length > 0 ? { matchLabels: labels } : {}),
    ...(expressions.length > 0 ? { matchExpressions: expressions } : {}),
  };
}

/** @param {Selector | null | undefined} selector */
export function selectorText(selector) {
  const labels = Object.entries(selector?.matchLabels ?? {}).map(([key, value]) => `${key}=${value}`);
  const expressions = (selector?.matchExpressions ?? []).map(({ key, operator, values = [] }) => {
    if (operator === "Exists") return key;
    if (operator === "DoesNotExist") return `!${key}`;
    return `${key} ${operator === "In" ? "in" : "notin"} (${values.join(", ")})`;
  });
  return [...labels, ...expressions].join(", ");
}

/** @param {Record<string, string>} labels @param {Selector} selector */
export function matches(labels, selector) {
  const all = Object.entries(selector.matchLabels ?? {}).every(([key, value]) => labels[key] === value);
  return all && (selector.matchExpressions ?? []).every(({ key, operator, values = [] }) => {
    const value = labels[key];
    if (operator === "Exists") return value !== undefined;
    if (operator === "DoesNotExist") return value === undefined;
    if (operator === "In") return value !== undefined && values.includes(value);
    return value === undefined || !values.includes(value);
  });
}

/** @typedef {{labels?: Record<string, string>}} Targeted */
/** @typedef {{all?: boolean, nodeNames?: string[], nodeSelector?: Selector, controlPlane?: string, exclude?: {nodeNames?: string[]}}} Targets */

const CONTROL_PLANE = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/** @param {Targeted} node */
export const isControlPlane = (node) => CONTROL_PLANE.some((key) => node.labels?.[key] !== undefined);

/**
 * The nodes of a Task. Names that no node has are targets too; they are not returned here.
 *
 * @template {Targeted & {name: string}} T
 * @param {T[]} nodes @param {Targets} targets @returns {T[]}
 */
export function targeted(nodes, targets) {
  const without = new Set(targets.exclude?.nodeNames ?? []);
  const named = targets.nodeNames && new Set(targets.nodeNames);
  return nodes.filter((node) => {
    if (without.has(node.name)) return false;
    if (named) return named.has(node.name);
    if (isControlPlane(node) && targets.controlPlane !== "Include") return false;
    if (targets.nodeSelector) return matches(node.labels ?? {}, targets.nodeSelector);
    return targets.all === true;
  });
}

/** @typedef {{name: string, labels?: Record<string, string>, figures: Record<string, number | null>}} Filtered */

/**
 * The filter of the fleet: words of the name, labels, and figures such as `disk>90`.
 *
 * @param {string} text
 * @returns {(node: Filtered) => boolean}
 */
export function nodeFilter(text) {
  const tests = text.trim().toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const figure = /^(cpu|memory|disk|load|running)(>=|<=|>|<|=)(\d+(?:\.\d+)?)%?$/.exec(word);
    if (figure) {
      const limit = Number(figure[3]);
      return (/** @type {Filtered} */ node) => {
        const value = node.figures[figure[1]];
        if (value === null || value === undefined) return false;
        return { ">": value > limit, "<": value < limit, ">=": value >= limit, "<=": value <= limit, "=": Math.round(value) === limit }[figure[2]] ?? false;
      };
    }
    const label = /^([\w./-]+)(!?=)(\S*)$/.exec(word);
    if (label) {
      return (/** @type {Filtered} */ node) => {
        // `zone=a` also means the well-known label that ends so.
        const has = Object.entries(node.labels ?? {}).some(([key, value]) => (key.toLowerCase() === label[1] || key.toLowerCase().endsWith(`/${label[1]}`)) && value.toLowerCase() === label[3]);
        return has === (label[2] === "=");
      };
    }
    return (/** @type {Filtered} */ node) => node.name.toLowerCase().includes(word);
  });
  return (node) => tests.every((test) => test(node));
}
