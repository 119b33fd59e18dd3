// Who asked for a Run, as text. Where it is not known, that is what it shows.

/** @param {import("./types.js").RequestedBy | null | undefined} by @returns {string} */
export function requestedBy(by) {
  if (!by) return "unknown";
  if (by.unknown) return `unknown (${by.unknown})`;
  const author = by.author?.user ?? "unknown";
  return by.rerun ? `${by.rerun.user} (spec of ${author})` : author;
}

/** The groups and the uid of who asked, for a title. @param {import("./types.js").RequestedBy | null | undefined} by @returns {string | undefined} */
export function requesterTitle(by) {
  const who = by?.unknown ? null : (by?.rerun ?? by?.author);
  if (!who) return undefined;
  const parts = [who.uid ? `uid ${who.uid}` : "", who.groups?.length ? `groups ${who.groups.join(", ")}` : ""];
  return parts.filter(Boolean).join("; ") || undefined;
}
