// Server-sent events out of a byte stream that the page reads by itself: an EventSource cannot send a token. Pure.

/** @typedef {{event: string, data: string, id: string | null}} ServerEvent */

/** Takes text in any pieces and returns the events that they complete. */
export class EventParser {
  #rest = "";
  #event = "";
  #id = /** @type {string | null} */ (null);
  /** @type {string[]} */
  #data = [];

  /** @param {string} text @returns {ServerEvent[]} */
  push(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    /** @type {ServerEvent[]} */
    const events = [];
    for (const line of lines) {
      const event = this.#line(line.endsWith("\r") ? line.slice(0, -1) : line);
      if (event) events.push(event);
    }
    return events;
  }

  /** @param {string} line @returns {ServerEvent | null} */
  #line(line) {
    if (line === "") {
      const event = { event: this.#event || "message", data: this.#data.join("\n"), id: this.#id };
      const complete = this.#data.length > 0;
      this.#event = "";
      this.#data = [];
      return complete ? event : null;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (field === "event") this.#event = value;
    else if (field === "data") this.#data.push(value);
    else if (field === "id") this.#id = value;
    return null;
  }
}
