// The time range of a page. It is in the address.

import { h } from "./dom.js";
import { tick } from "./format.js";

/** The ranges in seconds, and their names. */
export const RANGES = [["300", "Last 5 minutes"], ["900", "Last 15 minutes"], ["3600", "Last hour"], ["21600", "Last 6 hours"], ["86400", "Last 24 hours"], ["604800", "Last 7 days"]];

/** Make a field for the time range of the page `path`. `changed()` is called after a choice. */
export function range(path, changed) {
  const given = new URLSearchParams(location.search).get("since_s") || "3600";
  const own = Number(given) > 0 && !RANGES.some(([value]) => value === given) ? [[given, `Last ${tick(given * 1000)}`]] : [];
  const choose = () => {
    const asked = new URLSearchParams(location.search);
    asked.set("since_s", select.value);
    history.replaceState(history.state, "", `${path}?${asked}`);
    changed();
  };
  const select = h("select", { onchange: choose }, [...RANGES, ...own].map(([value, text]) => h("option", { value, selected: value === given }, text)));
  return { element: h("label", { class: "range" }, h("span", { class: "hidden" }, "Time range"), select), value: () => Number(select.value) };
}
