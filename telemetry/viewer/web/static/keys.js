// Keys that work everywhere, and the sheet that tells of all of them.

import { h } from "./dom.js";

const SHEET = [
  ["Everywhere", [["?", "keyboard shortcuts"], ["/", "search"], ["g t", "traces"], ["g q", "queues"], ["g m", "map"], ["g l", "logs"], ["t", "light or dark"], ["Esc", "close, or leave a field"]]],
  ["Traces", [["↑ ↓", "previous, next"], ["j k", "next, previous"], ["Enter", "open"], ["r", "refresh"]]],
  ["A trace", [["↑ ↓", "row"], ["→ ←", "open, close, go to its parent"], ["Home End", "first, last"], ["Enter", "details"], ["/", "search spans"], ["n N", "next match, previous match"], ["+ -", "zoom in, zoom out"], ["0", "reset zoom"], ["*", "open or close all"], ["c", "copy the trace id"], ["p", "copy the traceparent of the row"], ["o", "copy as OTLP JSON"], ["d", "download"], ["u", "back to the traces"]]],
];

const SEARCHES = [
  ["charge", "part of a name of a service, task, queue, route or span"],
  ["3f1c…", "a task id, trace id, span id or traceparent"],
  ["user.id=7", "an attribute"],
  ["wait>2s duration<=200ms", "comparisons"],
  ["status:stuck", "a state of a trace, message or run"],
  ["queue:mail task: service: route:", "part of such a name"],
  ['log:"card declined"', "a text in its log records"],
];

function sheet(dialog) {
  if (dialog.childElementCount) return;
  dialog.append(
    h("h2", { id: "keys-title" }, "Keyboard shortcuts"),
    h("div", { class: "sheet" }, SHEET.map(([title, keys]) => h("section", {}, h("h3", {}, title), h("dl", {}, keys.map(([key, what]) => [h("dt", {}, key.split(" ").map((one, at) => [at ? " " : "", h("kbd", {}, one)])), h("dd", {}, what)]))))),
    h("section", {}, h("h3", {}, "Searching traces"), h("dl", { class: "searches" }, SEARCHES.map(([text, what]) => [h("dt", {}, h("code", {}, text)), h("dd", {}, what)]))),
    h("form", { method: "dialog" }, h("button", { autofocus: true }, "Close")),
  );
}

/** Listen to keys; `page()` has `keys`, a map from a key to what it does on the page that is shown. */
export function keyboard({ go, page, help, dialog }) {
  const show = () => {
    sheet(dialog);
    dialog.showModal();
  };
  help.addEventListener("click", show);
  // Focus the search of this page, or go to the list and focus it there.
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
      if (event.key === "Escape") field.blur();
      return;
    }
    const key = prefix + event.key;
    prefix = "";
    const does = page()?.keys?.[key] || everywhere[key];
    if (does) {
      event.preventDefault();
      does(event);
    } else if (event.key === "g") {
      prefix = "g ";
      setTimeout(() => (prefix = ""), 1200);
    }
  });
}
