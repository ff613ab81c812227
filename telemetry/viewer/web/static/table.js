// The attributes of a span, an event or a log record as a table.

import { breakable, h } from "./dom.js";
import { duration, timeOf } from "./format.js";

// A longer text gets a box of its own that scrolls.
const LONG = 300;
// The milliseconds in one unit of an attribute, by the end of its name.
const UNITS = [[/^celery\.wait\.|(_|\.)(s|sec|seconds)$/, 1000], [/(_|\.)(ms|millis|milliseconds|latency)$/, 1], [/(_|\.)(us|micros)$/, 1e-3], [/(_|\.)(ns|nanos)$/, 1e-6]];
const TIMES = /^celery\.task\.(eta|expires)$/;

/** A table of names and values, sorted by name. */
export function attributes(values) {
  const names = Object.keys(values).sort();
  return h("table", { class: "attributes" }, h("tbody", {}, names.map((name) => h("tr", {}, h("th", { scope: "row" }, breakable(name)), h("td", {}, shown(name, values[name]))))));
}

/** A traceback or another long text in a box that scrolls, also with the keyboard. */
export function longText(label, text) {
  return h("pre", { tabindex: "0", role: "region", "aria-label": label }, String(text));
}

function shown(name, value) {
  if (value instanceof Node) return value;
  if (typeof value === "number") {
    const unit = UNITS.find(([pattern]) => pattern.test(name));
    if (unit) return h("span", { title: String(value) }, duration(value * unit[1]));
  }
  if (TIMES.test(name) && !Number.isNaN(Date.parse(value))) return timeOf(String(BigInt(Date.parse(value)) * 1_000_000n));
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > LONG || text.includes("\n") ? longText(name, text) : text;
}
