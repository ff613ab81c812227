// The keys that work on every page, and the dialog that lists all keys.

import { h } from "./dom.js";

const SHEET = [
  ["All pages", [["?", "keyboard shortcuts"], ["/", "search"], ["g t", "traces"], ["g q", "queues"], ["g m", "map"], ["g l", "logs"], ["t", "light or dark theme"], ["Esc", "close, or leave a field"]]],
  ["Traces", [["↑ ↓", "previous or next trace"], ["j k", "next or previous trace"], ["Enter", "open the trace"], ["r", "refresh"]]],
  ["One trace", [["↑ ↓", "previous or next row"], ["→ ←", "expand or collapse, go to the parent"], ["Shift →", "move the zoomed part (also ←)"], ["Home End", "first or last row"], ["Enter", "span details"], ["/", "search spans"], ["n N", "next or previous match"], ["+ -", "zoom in or out"], ["0", "reset zoom"], ["*", "expand or collapse all"], ["c", "copy the trace id"], ["p", "copy the traceparent of the row"], ["o", "copy as OTLP JSON"], ["d", "download"], ["u", "back to the traces"]]],
];

const SEARCHES = [
  ["charge", "part of the name of a service, task, queue, route, exception or span"],
  ["3f1c9a02", "a task id or trace id, or its first 8 characters or more"],
  ["user.id=7", "an attribute"],
  ["wait>2s duration<=200ms", "comparisons"],
  ["status:stuck", "the state of a trace, message or run"],
  ["queue:mail task: service: route: exception:", "part of such a name"],
  ['queue:""', "messages without a queue name"],
  ['log:"card declined"', "text in the log records of the trace"],
];

function fill(dialog) {
  if (dialog.childElementCount) return;
  dialog.append(
    h("div", { class: "detail-head" }, h("h2", { id: "keys-title" }, "Keyboard shortcuts"), h("form", { method: "dialog" }, h("button", { autofocus: true }, "Close"))),
    h("div", { class: "sheet" }, SHEET.map(([title, keys]) => h("section", {}, h("h3", {}, title), h("dl", {}, keys.map(([key, what]) => [h("dt", {}, key.split(" ").map((one, at) => [at ? " " : "", h("kbd", {}, one)])), h("dd", {}, what)]))))),
    h("section", {}, h("h3", {}, "Search for traces"), h("dl", { class: "searches" }, SEARCHES.map(([text, what]) => [h("dt", {}, h("code", {}, text)), h("dd", {}, what)]))),
  );
}

/** Listen to keys. `page().keys` has the keys of the current page and what they do. */
export function keyboard({ go, page, help, dialog }) {
  const show = () => {
    fill(dialog);
    dialog.showModal();
  };
  help.addEventListener("click", show);
  // Focus the search field of this page, or that of the list of traces.
  const search = () => {
    const field = () => document.querySelector("[data-search]");
    if (!field()) go("/");
    field()?.focus();
    field()?.select();
  };
  const everywhere = {
    "?": show,
    "/": search,
    t: () => document.getElementById("theme").click(),
    "g t": () => go("/"),
    "g q": () => go("/queues"),
    "g m": () => go("/map"),
    "g l": () => go("/logs"),
  };
  let prefix = "";
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
    const field = event.target.closest?.("input, select, textarea");
    if (field) {
      if (event.key === "Escape") {
        // The browser would empty the field, and the list would follow the next time it is read.
        event.preventDefault();
        field.blur();
      }
      return;
    }
    const key = prefix + event.key;
    prefix = "";
    const act = page()?.keys?.[key] || everywhere[key];
    if (act) {
      event.preventDefault();
      act(event);
    } else if (event.key === "g") {
      prefix = "g ";
      setTimeout(() => (prefix = ""), 1200);
    }
  });
}
