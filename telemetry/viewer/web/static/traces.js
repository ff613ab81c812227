// The list of traces: found by what one knows of them, and live as they arrive.

import { get } from "./api.js";
import { h, prose } from "./dom.js";
import { clock, count, duration, exactly } from "./format.js";

const FIELDS = [
  ["service", "Service", "services"],
  ["task", "Task", "tasks"],
  ["queue", "Queue", "queues"],
  ["route", "Route", "routes"],
];
const STATUSES = [["", "any"], ["ok", "ok"], ["error", "error"], ["waiting", "still waiting"], ["broken", "parent missing"]];
const SORTS = [["recent", "newest first"], ["wait", "longest wait first"], ["duration", "longest first"]];
const PARAMETERS = ["service", "task", "queue", "route", "status", "min_ms", "min_wait_ms", "trace_id", "sort"];
const STATE_WORDS = { waiting: "waiting", broken: "parent missing", error: "error", ok: "ok" };

/** Show the list in `view`. */
export function showTraces(view, _, go) {
  document.title = "Traces · queuehop";
  const rows = new Map();
  const body = h("tbody");
  const status = h("p", { class: "status", role: "status" });
  const fresh = h("button", { type: "button", class: "fresh", hidden: true, onclick: () => read() });
  const more = h("button", { type: "button", class: "more", hidden: true, onclick: () => read(true) }, "Show more");
  const table = h(
    "table",
    { class: "traces" },
    h("caption", { class: "hidden" }, "Traces"),
    h("thead", {}, h("tr", {}, ["Began", "Trace", "Lasted", "Waited", "Spans", "Status"].map((text, at) => h("th", { scope: "col", class: at >= 2 && at <= 4 ? "number" : null }, text)))),
    body,
  );
  let next = null;
  let request = null;
  let chosen = -1;
  let unseen = 0;
  let closed = false;

  const form = filters(new URLSearchParams(location.search), (parameters) => {
    const text = parameters.toString();
    history.replaceState({}, "", text ? `/?${text}` : "/");
    read();
  });
  view.append(form.element, status, fresh, table, more);

  async function read(further = false) {
    request?.abort();
    request = new AbortController();
    const parameters = form.parameters();
    if (further && next) parameters.set("before", next);
    parameters.set("limit", "50");
    let answer;
    try {
      answer = await get(`/api/traces?${parameters}`, request.signal);
    } catch (error) {
      if (error.name !== "AbortError") status.textContent = error.message;
      return;
    }
    if (closed) return;
    if (!further) {
      rows.clear();
      body.replaceChildren();
      chosen = -1;
    }
    const longest = Math.max(1, ...answer.traces.map((trace) => trace.duration_ms));
    for (const trace of answer.traces) put(trace, longest);
    next = answer.next;
    more.hidden = !next;
    unseen = 0;
    fresh.hidden = true;
    table.hidden = !rows.size;
    status.replaceChildren(...(rows.size ? [] : empty(form.isFiltered())));
  }

  function put(trace, longest) {
    const row = line(trace, longest);
    const known = rows.get(trace.trace_id);
    if (known) known.replaceWith(row);
    else body.append(row);
    rows.set(trace.trace_id, row);
  }

  function choose(step) {
    const all = [...body.rows];
    if (!all.length) return;
    chosen = Math.max(0, Math.min(all.length - 1, chosen + step));
    all[chosen].querySelector("a").focus();
  }

  function heard(kind, trace) {
    if (kind !== "trace") return;
    if (rows.has(trace.trace_id)) {
      const focused = rows.get(trace.trace_id).contains(document.activeElement);
      put(trace, Math.max(trace.duration_ms, 1));
      if (focused) rows.get(trace.trace_id).querySelector("a").focus();
      return;
    }
    if (!rows.size || (!form.isFiltered() && window.scrollY < 40 && !body.contains(document.activeElement) && !body.matches(":hover"))) {
      later();
    } else {
      // Where somebody reads, nothing moves until they say so.
      unseen += 1;
      fresh.hidden = false;
      fresh.textContent = `${count(unseen)} more ${unseen === 1 ? "trace" : "traces"} arrived: show`;
    }
  }

  let timer = null;
  function later() {
    timer ??= setTimeout(() => {
      timer = null;
      if (!closed) read();
    }, 700);
  }

  read();
  return {
    heard,
    refresh: () => read(),
    keys: { j: () => choose(1), k: () => choose(-1), r: () => read() },
    close: () => {
      closed = true;
      clearTimeout(timer);
      request?.abort();
    },
  };
}

function line(trace, longest) {
  const waited = Math.min(trace.wait_ms, trace.duration_ms);
  const states = Object.entries(trace.states).filter(([state]) => !["SUCCESS", "RETRY"].includes(state));
  return h(
    "tr",
    { class: `is-${trace.status}` },
    h("td", {}, h("time", { datetime: exactly(trace.start_ns), title: exactly(trace.start_ns) }, clock(trace.start_ns))),
    h("th", { scope: "row" }, h("a", { href: `/trace/${trace.trace_id}`, "data-link": "" }, trace.name), h("span", { class: "where" }, trace.services.join(" → ")), h("span", { class: "sentence" }, prose(trace.sentence))),
    h("td", { class: "number" }, duration(trace.duration_ms), h("span", { class: "share", "aria-hidden": "true" }, h("i", { class: "work", style: { width: `${(100 * (trace.duration_ms - waited)) / longest}%` } }), h("i", { class: "queue", style: { width: `${(100 * waited) / longest}%` } }))),
    h("td", { class: "number" }, trace.queues.length ? duration(trace.wait_ms) : "–"),
    h("td", { class: "number" }, count(trace.spans)),
    h("td", {}, h("span", { class: `badge ${trace.status}` }, STATE_WORDS[trace.status] || trace.status), states.map(([state, times]) => h("span", { class: "badge state" }, times > 1 ? `${state} ×${times}` : state))),
  );
}

function empty(filtered) {
  if (filtered) return [h("span", {}, "No trace is like that. Take away a filter, or wait: they appear here as they arrive.")];
  const host = location.hostname;
  return [
    h(
      "span",
      { class: "empty" },
      "No trace has arrived yet. Send some: ",
      h("code", {}, `OTEL_EXPORTER_OTLP_ENDPOINT=http://${host}:4317`),
      " over gRPC (or the address given with ",
      h("code", {}, "--grpc"),
      "), or OTLP/HTTP to ",
      h("code", {}, location.origin),
      ". They appear here by themselves.",
    ),
  ];
}

function filters(given, changed) {
  const lists = Object.fromEntries(FIELDS.map(([name]) => [name, h("datalist", { id: `list-${name}` })]));
  const text = (name, label, properties = {}) => h("label", {}, label, h("input", { name, value: given.get(name), autocomplete: "off", ...properties }));
  const choice = (name, label, options) => h("label", {}, label, h("select", { name }, options.map(([value, shown]) => h("option", { value, selected: given.get(name) === value }, shown))));
  const element = h(
    "form",
    { class: "filters", role: "search", "aria-label": "Find traces", onsubmit: (event) => event.preventDefault() },
    text("trace_id", "Trace id", { "data-search": true, placeholder: "its beginning", spellcheck: "false" }),
    FIELDS.map(([name, label]) => [text(name, label, { list: `list-${name}`, placeholder: "any" }), lists[name]]),
    choice("status", "Status", STATUSES),
    text("min_ms", "Lasted at least, ms", { inputmode: "decimal", size: "6" }),
    text("min_wait_ms", "Waited at least, ms", { inputmode: "decimal", size: "6" }),
    choice("sort", "Order", SORTS),
    h("button", { type: "reset" }, "Clear"),
  );
  get("/api/facets").then((facets) => {
    for (const [name, , key] of FIELDS) lists[name].append(...(facets[key] || []).map((value) => h("option", { value })));
  }, () => {});
  const parameters = () => {
    const found = new URLSearchParams();
    for (const name of PARAMETERS) {
      const value = String(new FormData(element).get(name) || "").trim();
      if (value && !(name === "sort" && value === "recent")) found.set(name, name === "trace_id" ? value.toLowerCase() : value);
    }
    return found;
  };
  let timer = null;
  const say = () => {
    clearTimeout(timer);
    timer = setTimeout(() => changed(parameters()), 250);
  };
  element.addEventListener("input", say);
  element.addEventListener("reset", () => {
    for (const field of element.elements) if ("defaultValue" in field) field.defaultValue = "";
    for (const option of element.querySelectorAll("option")) option.defaultSelected = false;
    setTimeout(say);
  });
  return { element, parameters, isFiltered: () => parameters().size > 0 };
}
