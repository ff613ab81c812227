// The frame around every page: routes, live events, import of files, keys and theme.

import { send } from "./api.js";
import { entitle, h, notFound, toast } from "./dom.js";
import { clock, counted, rate } from "./format.js";
import { keyboard } from "./keys.js";
import { showLogs } from "./logs.js";
import { showMap } from "./map.js";
import { showQueue } from "./queue.js";
import { showQueues } from "./queues.js";
import { keepPlace, reach } from "./scrolling.js";
import { listen } from "./stream.js";
import { theme } from "./theme.js";
import { showTrace } from "./trace.js";
import { showTraces } from "./traces.js";

const ROUTES = [
  [/^\/$/, "traces", showTraces],
  [/^\/trace\/([^/]+)(?:\/([^/]+))?$/, "trace", showTrace],
  [/^\/queues$/, "queues", showQueues],
  [/^\/queue$/, "queues", showQueue],
  [/^\/map$/, "map", showMap],
  [/^\/logs$/, "logs", showLogs],
];

// Milliseconds that the first page waits for the stream. What it reads after the stream is open, it need not read again.
const PATIENCE = 300;

const view = document.getElementById("view");
const places = keepPlace();
let page;
let isOpen = false;

/** Go to an address of the viewer, as a link does. */
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
  page?.close?.();
  const path = location.pathname;
  const [pattern, name, open] = ROUTES.find(([route]) => route.test(path)) ?? [/.*/, "", showNothing];
  for (const link of document.querySelectorAll("[data-page]")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  view.replaceChildren();
  page = open(view, pattern.exec(path).slice(1), go);
}

function showNothing(view) {
  entitle("Page not found");
  view.append(notFound("Page not found", `${location.pathname} is not a page of the viewer.`));
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.('a[data-link], a[href^="#"]');
  if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const href = link.getAttribute("href");
  // The browser would report a part of this page as another page.
  if (href.startsWith("#")) return reach(href.slice(1));
  go(href);
  // Screen readers and Tab go on from the top of the new page.
  view.focus({ preventScroll: true });
});
window.addEventListener("popstate", () => {
  show();
  places.restore();
});

const live = document.getElementById("live");
const liveText = document.getElementById("live-text");
const offline = h("p", { class: "offline", role: "status" });
document.querySelector(".top").after(offline);
let since = "";
let failing = "";
function note() {
  if (since) offline.textContent = `No connection to the viewer since ${since}. The data is from that time. Reconnecting…`;
  else offline.textContent = failing && `The viewer ${failing}. It stores no new spans.`;
}
listen({
  heard(kind, value) {
    if (kind === "stats") {
      failing = value.failing;
      note();
      const now = value.received_per_s ? `, ${rate(value.received_per_s)} now` : "";
      liveText.textContent = `${counted(value.spans, "span")}${now}`;
      live.title = value.dropped ? `${counted(value.dropped, "span")} dropped` : "";
    }
    page?.heard?.(kind, value);
  },
  connected(up) {
    live.classList.toggle("up", up);
    document.body.classList.toggle("is-old", !up);
    if (!up) liveText.textContent = "Not connected";
    since = up ? "" : clock(String(BigInt(Date.now()) * 1_000_000n));
    note();
  },
  missed() {
    if (isOpen) page?.refresh?.();
    else start();
  },
});

async function importFile(file) {
  try {
    const { accepted, logs, traces, trace_id: trace } = await send(file);
    const imported = [accepted ? counted(accepted, "span") : "", logs ? counted(logs, "log record") : ""].filter(Boolean).join(" and ");
    toast(`Imported ${imported}${traces > 1 ? ` in ${counted(traces, "trace")}` : ""} from ${file.name}`);
    go(!accepted ? "/logs?all=1" : traces === 1 ? `/trace/${trace}` : "/?sort=received");
  } catch (error) {
    toast(`Cannot import ${file.name}: ${error.message}`);
  }
}

const upload = document.getElementById("upload");
upload.addEventListener("change", () => {
  if (upload.files[0]) importFile(upload.files[0]);
  upload.value = "";
});
window.addEventListener("dragover", (event) => event.preventDefault());
window.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) importFile(event.dataTransfer.files[0]);
});

theme(document.getElementById("theme"));
keyboard({ go, page: () => page, help: document.getElementById("help"), dialog: document.getElementById("keys") });
if (document.visibilityState === "visible") setTimeout(start, PATIENCE);
else start();
