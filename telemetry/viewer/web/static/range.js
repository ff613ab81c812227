// The time range of a page, kept in its address.

import { h } from "./dom.js";
import { duration } from "./format.js";

/** Seconds, and how a range of so many is called. */
export const RANGES = [["300", "Last 5 minutes"], ["900", "Last 15 minutes"], ["3600", "Last hour"], ["21600", "Last 6 hours"], ["86400", "Last 24 hours"], ["604800", "Last 7 days"]];

/** Let somebody choose a time range on the page `path`; call `changed()` when they do. */
export function range(path, changed) {
  const given = new URLSearchParams(location.search).get("since_s") || "3600";
  const own = Number(given) > 0 && !RANGES.some(([value]) => value === given) ? [[given, `Last ${duration(given * 1000)}`]] : [];
  const choose = () => {
    const asked = new URLSearchParams(location.search);
    asked.set("since_s", select.value);
    history.replaceState(history.state, "", `${path}?${asked}`);
    changed();
  };
  const select = h("select", { onchange: choose }, [...RANGES, ...own].map(([value, text]) => h("option", { value, selected: value === given }, text)));
  return { element: h("label", { class: "range" }, h("span", { class: "hidden" }, "Time range"), select), value: () => Number(select.value) };
}
