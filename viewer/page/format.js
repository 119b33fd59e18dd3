// Numbers, sizes, spans and times as people read them. Pure: what is now is always passed in.

const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** `1,204`. @param {number} n */
export const count = (n) => grouped.format(n);

/** `1 node`, `2 nodes`. @param {number} n @param {string} one @param {string} [many] */
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** At most one decimal, none where it is zero. @param {number} n */
const short = (n) => (n >= 1000 ? count(n) : n.toFixed(1).replace(/\.0$/, ""));

/** @param {number} n @param {number} step @param {string[]} units */
function scaled(n, step, units) {
  let unit = 0;
  // 999.95 would be written as 1000.0.
  while (n >= step - 0.05 && unit < units.length - 1) {
    n /= step;
    unit += 1;
  }
  return `${unit === 0 ? count(n) : short(n)} ${units[unit]}`;
}

/** What was written or sent: `18.7 kB`. @param {number} n */
export const bytes = (n) => scaled(n, 1000, ["B", "kB", "MB", "GB", "TB", "PB"]);

/** Memory and disks: `256 MiB`. @param {number} n */
export const memory = (n) => scaled(n, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]);

/** @param {number} n */
const two = (n) => String(n).padStart(2, "0");

/** `12 ms`, `2.9 s`, `4m 33s`, `2h 31m`, `41 days`. @param {number} ms @returns {string} */
export function span(ms) {
  if (ms < 0) return `−${span(-ms)}`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${short(ms / 1000)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${two(seconds % 60)}s`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)}h ${two(Math.floor((seconds % 3600) / 60))}m`;
  return `${Math.floor(seconds / 86_400)} days`;
}

/** A span that counts by whole seconds: `8s`, `1m 52s`, `34m`. @param {number} ms */
export function coarse(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 600) return `${Math.floor(seconds / 60)}m ${two(seconds % 60)}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h ${two(Math.floor((seconds % 3600) / 60))}m`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** `3s ago`. @param {number} ms */
export const ago = (ms) => `${coarse(ms)} ago`;

/** A time of the API as milliseconds, `NaN` where there is none. @param {string | null | undefined} text */
export const at = (text) => (text ? Date.parse(text) : NaN);

/** `12:03:01`. @param {number} ms */
export function clock(ms) {
  const date = new Date(ms);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** `12:03:01.004`. @param {number} ms */
export const clockMs = (ms) => `${clock(ms)}.${String(Math.floor(((ms % 1000) + 1000) % 1000)).padStart(3, "0")}`;

/** With day, milliseconds and zone, for titles. @param {number} ms */
export function full(ms) {
  const date = new Date(ms);
  const minutes = -date.getTimezoneOffset();
  const zone = `${minutes < 0 ? "-" : "+"}${two(Math.floor(Math.abs(minutes) / 60))}:${two(Math.abs(minutes) % 60)}`;
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clockMs(ms)} ${zone}`;
}

/** @param {number} a @param {number} b */
export function sameDay(a, b) {
  return new Date(a).toDateString() === new Date(b).toDateString();
}

const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** The clock today, and the day before that. @param {number} ms @param {number} now */
export function when(ms, now) {
  if (Number.isNaN(ms)) return "–";
  if (sameDay(ms, now)) return clock(ms);
  if (sameDay(ms, now - 86_400_000)) return `yesterday ${clock(ms).slice(0, 5)}`;
  const date = new Date(ms);
  const year = date.getFullYear() === new Date(now).getFullYear() ? "" : ` ${date.getFullYear()}`;
  return `${date.getDate()} ${months[date.getMonth()]}${year}`;
}

/** How long ago within a day, and the day before that. @param {number} ms @param {number} now */
export function since(ms, now) {
  if (Number.isNaN(ms)) return "–";
  return now - ms < 86_400_000 ? ago(now - ms) : when(ms, now);
}

/** The heading of a day: `Today, Saturday 28 November`. @param {number} ms @param {number} now */
export function day(ms, now) {
  const date = new Date(ms);
  const weekday = new Intl.DateTimeFormat("en-GB", { weekday: "long" }).format(date);
  const rest = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "long" }).format(date);
  const year = date.getFullYear() === new Date(now).getFullYear() ? "" : ` ${date.getFullYear()}`;
  const near = sameDay(ms, now) ? "Today, " : sameDay(ms, now - 86_400_000) ? "Yesterday, " : "";
  return `${near}${weekday} ${rest}${year}`;
}

/** A word within a sentence; an abbreviation stays. @param {string} word */
export const lower = (word) => (/^[A-Z]{2}/.test(word) ? word : word.charAt(0).toLowerCase() + word.slice(1));

/** A name of the API in words: `OomKilled` is `OOM killed`. @param {string} name */
export function spaced(name) {
  const words = name.replace(/([a-z0-9])([A-Z])/g, "$1 $2").replace(/^Oom\b/, "OOM");
  return words.replace(/ [A-Z](?=[a-z])/g, (letter) => letter.toLowerCase());
}
