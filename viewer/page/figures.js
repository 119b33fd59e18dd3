// What the fleet shows of a node, out of its last sample. Pure.

/** @typedef {import("./types.js").Node} Node */
/** @typedef {"reachable" | "late" | "unreachable"} Presence */

/** A heartbeat comes every 5 s, and after 15 s without one a node is unreachable: in between it is late. */
const LATE_MS = 8_000;

/** How each is shown. @type {Record<Presence, import("./states.js").Look>} */
export const PRESENCE = {
  reachable: { tone: "ok", icon: "here", word: "Reachable", rank: 19 },
  late: { tone: "late", icon: "late", word: "Late", rank: 5 },
  unreachable: { tone: "lost", icon: "gone", word: "Unreachable", rank: 9 },
};

/**
 * @typedef {object} Seen A node as a row.
 * @property {string} name
 * @property {Node} node
 * @property {Record<string, string>} labels
 * @property {Presence} presence
 * @property {number | null} heard ms ago
 * @property {Record<string, number | null>} figures
 * @property {{mount: string, share: number} | null} disk the fullest
 * @property {{received: number, sent: number} | null} rate bytes a second
 * @property {number} rank problems first
 */

/**
 * @param {Node} node @param {number} now @param {{received: number, sent: number} | null} rate
 * @param {number} asked when: a page that has not asked for a while knows of no silence since
 * @returns {Seen}
 */
export function seen(node, now, rate, asked) {
  const at = node.lastHeardAt ? Date.parse(node.lastHeardAt) : null;
  const heard = at === null ? null : Math.max(0, now - at);
  /** @type {Presence} */
  const presence = !node.reachable ? "unreachable" : at !== null && asked - at > LATE_MS ? "late" : "reachable";
  // What is gone has no numbers: the last ones are not how it is.
  const metrics = presence === "unreachable" ? null : node.metrics ?? null;
  const disk = metrics ? fullest(metrics.disks) : null;
  const memory = metrics && metrics.memoryTotal > 0 ? (metrics.memoryUsed / metrics.memoryTotal) * 100 : null;
  const figures = { cpu: metrics?.cpuPercent ?? null, memory, disk: disk?.share ?? null, load: metrics?.load[0] ?? null, running: metrics?.running ?? null };
  const full = Math.max(figures.cpu ?? 0, memory ?? 0, figures.disk ?? 0);
  const rank = presence === "unreachable" ? 0 : presence === "late" ? 1 : full > 95 ? 2 : full > 88 ? 3 : 4;
  return { name: node.name, node, labels: node.labels ?? {}, presence, heard, figures, disk, rate: metrics ? rate : null, rank };
}

/** @param {{mount: string, total: number, available: number}} disk */
export const diskShare = ({ total, available }) => (total > 0 ? ((total - available) / total) * 100 : 0);

/** @param {{mount: string, total: number, available: number}[]} disks */
function fullest(disks) {
  let found = null;
  for (const disk of disks ?? []) {
    const share = diskShare(disk);
    if (!found || share > found.share) found = { mount: disk.mount, share };
  }
  return found;
}

/**
 * Bytes a second between two samples of a node; `null` while there is one only.
 *
 * @param {Node | undefined} before @param {Node} after
 */
export function rateOf(before, after) {
  const ms = Date.parse(after.lastHeardAt ?? "") - Date.parse(before?.lastHeardAt ?? "");
  if (!before?.metrics || !after.metrics || !(ms >= 1000) || after.metrics.uptimeSeconds < before.metrics.uptimeSeconds) return null;
  const sum = (/** @type {Node} */ node, /** @type {"received" | "sent"} */ way) => (node.metrics?.networks ?? []).reduce((all, one) => all + one[way], 0);
  const received = sum(after, "received") - sum(before, "received");
  const sent = sum(after, "sent") - sum(before, "sent");
  return received < 0 || sent < 0 ? null : { received: (received * 1000) / ms, sent: (sent * 1000) / ms };
}

/** How many nodes are in each part of 0 to 100, the middle and the 95th hundredth. @param {(number | null)[]} values */
export function distribution(values, parts = 24) {
  const known = /** @type {number[]} */ (values.filter((value) => value !== null)).sort((a, b) => a - b);
  const counts = new Array(parts).fill(0);
  for (const value of known) counts[Math.min(parts - 1, Math.floor((value / 100) * parts))] += 1;
  const part = (/** @type {number} */ share) => known[Math.min(known.length - 1, Math.floor(known.length * share))] ?? null;
  return { counts, median: part(0.5), p95: part(0.95), known: known.length };
}

/** Labels that tell nodes apart: more than one value, and fewer than there are nodes. @param {Seen[]} nodes */
export function usefulLabels(nodes) {
  /** @type {Map<string, Set<string>>} */
  const values = new Map();
  for (const { labels } of nodes) for (const [key, value] of Object.entries(labels)) values.set(key, (values.get(key) ?? new Set()).add(value));
  const most = Math.min(200, Math.max(1, nodes.length / 2));
  const score = (/** @type {string} */ key) => (/(^|\/)(pool|zone|role|region|type|instance-type)$/.test(key) ? 0 : key.includes("kubernetes.io") ? 2 : 1);
  return [...values].filter(([, set]) => set.size > 1 && set.size <= most).map(([key]) => key).sort((a, b) => score(a) - score(b) || (a < b ? -1 : 1));
}

/** `zone` of `topology.kubernetes.io/zone`. @param {string} key */
export const shortLabel = (key) => key.slice(key.lastIndexOf("/") + 1);
