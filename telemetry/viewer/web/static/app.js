// The frame around every page: routes, live events, keys, theme.

import { send } from "./api.js";
import { h, toast } from "./dom.js";
import { count, rate } from "./format.js";
import { keyboard } from "./keys.js";
import { showLogs } from "./logs.js";
import { showMap } from "./map.js";
import { showQueue } from "./queue.js";
import { showQueues } from "./queues.js";
import { keepPlace } from "./scrolling.js";
import { listen } from "./stream.js";
import { theme } from "./theme.js";
import { showTrace } from "./trace.js";
import { showTraces } from "./traces.js";

const ROUTES = [
  [/^\/$/, "traces", showTraces],
  [/^\/trace\/([0-9a-fA-F]+)(?:\/([0-9a-fA-F]+))?$/, "trace", showTrace],
  [/^\/queues$/, "queues", showQueues],
  [/^\/queue$/, "queues", showQueue],
  [/^\/map$/, "map", showMap],
  [/^\/logs$/, "logs", showLogs],
];

// Milliseconds that the first page waits for the stream: what it reads then, it need not read again.
const PATIENCE = 300;

const view = document.getElementById("view");
const places = keepPlace();
let page = null;
let isOpen = false;

/** Go to an address of this page, as a link does. */
export function go(address, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"]({}, "", address);
  places.toTop();
  show();
}

function start() {
  if (!isOpen) show();
}

function show() {
  isOpen = true;
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
  // Whoever reads the page aloud, or goes on with Tab, is at its beginning.
  view.focus({ preventScroll: true });
});
window.addEventListener("popstate", () => {
  show();
  places.restore();
});

const live = document.getElementById("live");
const words = document.getElementById("live-text");
const offline = h("p", { class: "offline", role: "status" });
document.querySelector(".top").after(offline);
listen({
  heard(kind, value) {
    if (kind === "stats") {
      const now = value.received_per_s ? `, ${rate(value.received_per_s)} now` : "";
      words.textContent = `${count(value.spans)} spans${now}`;
      live.title = value.dropped ? `${count(value.dropped)} spans were dropped` : "";
    }
    page?.heard?.(kind, value);
  },
  connected(up) {
    live.classList.toggle("up", up);
    document.body.classList.toggle("is-old", !up);
    if (!up) words.textContent = "Not connected";
    offline.textContent = up ? "" : `No connection to the viewer since ${new Date().toLocaleTimeString(undefined, { hour12: false })}. The data below is from then. Reconnecting…`;
  },
  missed() {
    if (isOpen) page?.refresh?.();
    else start();
  },
});

async function open(file) {
  try {
    const { accepted, logs, traces, trace_id: trace } = await send(file);
    const records = logs ? `${accepted ? " and " : ""}${count(logs)} ${logs === 1 ? "log record" : "log records"}` : "";
    toast(`Imported ${accepted ? `${count(accepted)} ${accepted === 1 ? "span" : "spans"}` : ""}${records}${traces > 1 ? ` in ${count(traces)} traces` : ""} from ${file.name}`);
    go(!accepted ? "/logs?all=1" : traces === 1 ? `/trace/${trace}` : "/");
  } catch (error) {
    toast(`${file.name} was not imported: ${error.message}`);
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
if (document.visibilityState === "visible") setTimeout(start, PATIENCE);
else start();
