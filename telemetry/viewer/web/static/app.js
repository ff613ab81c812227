// The frame around every page: routes, live events, keys, theme.

import { listen, send } from "./api.js";
import { h, toast } from "./dom.js";
import { count, rate } from "./format.js";
import { keyboard } from "./keys.js";
import { showMap } from "./map.js";
import { showQueues } from "./queues.js";
import { theme } from "./theme.js";
import { showTrace } from "./trace.js";
import { showTraces } from "./traces.js";

const ROUTES = [
  [/^\/$/, "traces", showTraces],
  [/^\/trace\/([0-9a-fA-F]+)(?:\/([0-9a-fA-F]+))?$/, "trace", showTrace],
  [/^\/queues$/, "queues", showQueues],
  [/^\/map$/, "map", showMap],
];

const view = document.getElementById("view");
let page = null;

/** Go to an address of this page, as a link does. */
export function go(address, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"]({}, "", address);
  show();
}

function show() {
  const path = location.pathname;
  page?.close?.();
  for (const [pattern, name, open] of ROUTES) {
    const match = pattern.exec(path);
    if (!match) continue;
    for (const link of document.querySelectorAll("[data-page]")) {
      if (link.dataset.page === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    view.replaceChildren();
    page = open(view, match.slice(1), go);
    return;
  }
  document.title = "queuehop";
  view.replaceChildren(h("p", { class: "empty" }, "There is no such page. ", h("a", { href: "/", "data-link": "" }, "All traces")));
  page = null;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-link]");
  if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.getAttribute("href"));
  window.scrollTo(0, 0);
});
window.addEventListener("popstate", show);

const live = document.getElementById("live");
listen(
  (kind, value) => {
    if (kind === "stats") {
      const now = value.received_per_s ? `, ${rate(value.received_per_s)} now` : "";
      document.getElementById("live-text").textContent = `${count(value.spans)} spans${now}`;
      live.title = value.dropped ? `${count(value.dropped)} spans were dropped` : "";
    }
    page?.heard?.(kind, value);
  },
  (up) => {
    live.classList.toggle("up", up);
    if (!up) document.getElementById("live-text").textContent = "not connected";
  },
);

async function open(file) {
  try {
    const { accepted, trace } = await send(await file.text());
    toast(`${accepted} spans were taken from ${file.name}`);
    if (trace) go(`/trace/${trace}`);
  } catch (error) {
    toast(`${file.name} was not taken: ${error.message}`);
  }
}

const upload = document.getElementById("upload");
upload.addEventListener("change", () => {
  if (upload.files[0]) open(upload.files[0]);
  upload.value = "";
});
window.addEventListener("dragover", (event) => event.preventDefault());
window.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
});

theme(document.getElementById("theme"));
keyboard({ go, page: () => page, help: document.getElementById("help"), dialog: document.getElementById("keys") });
show();
