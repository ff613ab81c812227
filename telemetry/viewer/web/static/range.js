// The time range of a page, kept in its address.

import { h } from "./dom.js";

const RANGES = [[300, "5 minutes"], [900, "15 minutes"], [3600, "1 hour"], [21600, "6 hours"], [86400, "24 hours"], [604800, "7 days"]];

/** Let somebody choose a time range on the page `path`; call `changed()` when they do. */
export function range(path, changed) {
  const given = new URLSearchParams(location.search).get("since_s") || "3600";
  const choose = () => {
    const asked = new URLSearchParams(location.search);
    asked.set("since_s", select.value);
    history.replaceState(history.state, "", `${path}?${asked}`);
    changed();
  };
  const select = h("select", { onchange: choose }, RANGES.map(([value, text]) => h("option", { value, selected: String(value) === given }, `Last ${text}`)));
  return { element: h("label", { class: "range" }, h("span", { class: "hidden" }, "Time range"), select), value: () => Number(select.value) };
}
