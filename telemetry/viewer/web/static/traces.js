// The list of traces: found by what one knows of them, and live as they arrive.

import { get } from "./api.js";
import { h, loading, nothing, prose } from "./dom.js";
import { clock, count, duration, exactly } from "./format.js";
import { RANGES } from "./range.js";
import { searchField } from "./search.js";
import { badges } from "./status.js";

const PAGE = 50;
const LONGEST = 200;
const PAUSE = 700;
const MOST_SERVICES = 4;
const FACETS = [
  ["service", "Service", "services"],
  ["task", "Task", "tasks"],
  ["queue", "Queue", "queues"],
  ["route", "Route", "routes"],
];
const STATUSES = [["", "Any"], ["stuck", "Stuck"], ["waiting", "Waiting"], ["overdue", "Overdue"], ["scheduled", "Scheduled"], ["expired", "Expired"], ["error", "Error"], ["revoked", "Revoked"], ["broken", "Parent missing"], ["ok", "OK"]];
const SORTS = [["recent", "Most recent"], ["wait", "Longest wait"], ["duration", "Longest duration"]];
// What other pages and older links may ask for besides.
const OTHERS = ["broker", "min_ms", "min_wait_ms", "trace_id"];

// Where somebody was in the list who goes back to it with a key.
let left = null;

/** Go back to the list as it was left: its filter, how much of it was shown, and the row. */
export function backToList(go) {
  const back = left;
  go(back?.address ?? "/");
  left = back;
}

/** Show the list in `view`. */
export function showTraces(view, _, go) {
  document.title = "Traces · queuehop";
  const address = location.pathname + location.search;
  const back = history.state?.shown ? history.state : left?.address === address ? left : null;
  left = null;
  const rows = new Map();
  const body = h("tbody", { role: "rowgroup" });
  const said = h("p", { class: "hidden", role: "status" });
  const state = h("div", {}, loading());
  const fresh = h("button", { type: "button", class: "fresh", hidden: true, onclick: () => { window.scrollTo(0, 0); read({ quiet: true }); } });
  const more = h("button", { type: "button", class: "more", hidden: true, onclick: () => read({ further: true }) }, "Show more");
  const table = h(
    "table",
    { class: "traces", role: "table", "aria-label": "Traces", hidden: true, onclick: (event) => click(event), onauxclick: (event) => click(event) },
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ["Start", "Trace", "Duration", "Waited", "Spans", "Status"].map((text, at) => h("th", { role: "columnheader", scope: "col", class: at >= 2 && at <= 4 ? "number" : null }, text)))),
    body,
  );
  let next = null;
  let request = null;
  let closed = false;
  let timer = null;
  let changes = null;
  let busy = false;

  const form = filters(new URLSearchParams(location.search), (done) => {
    const text = form.parameters().toString();
    history[done ? "pushState" : "replaceState"]({}, "", text ? `/?${text}` : "/");
    read();
  });
  view.append(h("h1", { class: "hidden" }, "Traces"), form.element, said, state, h("div", { class: "fresh-bar" }, fresh), table, more);

  /** Read the list: anew, the next page of it, or the part that is shown once more. */
  async function read({ further = false, again = false, quiet = false, limit = PAGE } = {}) {
    request?.abort();
    request = new AbortController();
    busy = true;
    const parameters = form.parameters();
    if (further && next) parameters.set("before", next);
    parameters.set("limit", String(again ? Math.min(LONGEST, rows.size + PAGE) : limit));
    let answer;
    try {
      answer = await get(`/api/traces?${parameters}`, request.signal);
    } catch (error) {
      if (error.name === "AbortError" || closed) return;
      busy = false;
      if (error.status === 400) {
        // What is shown does not answer what is asked.
        form.complain(error.message, error.position);
        replace([]);
        state.replaceChildren(examples());
        more.hidden = fresh.hidden = true;
      } else if (!rows.size) state.replaceChildren(h("p", { class: "empty" }, error.message));
      return;
    }
    if (closed) return;
    busy = false;
    form.complain("");
    if (further) for (const trace of answer.traces) put(trace);
    else if (again) takeAgain(answer);
    else replace(answer.traces);
    if (!again) {
      next = answer.next;
      if (!quiet) said.textContent = rows.size ? `${count(rows.size)}${next ? " or more" : ""} ${rows.size === 1 && !next ? "trace" : "traces"}` : "No traces match";
      if (!further) fresh.hidden = true;
    }
    more.hidden = !next;
    table.hidden = !rows.size;
    state.replaceChildren(...(rows.size ? [] : [empty(form.isFiltered())]));
    watch();
  }

  function replace(traces) {
    const wanted = new Set(traces.map((trace) => trace.trace_id));
    for (const id of [...rows.keys()]) if (!wanted.has(id)) drop(id);
    traces.forEach((trace, at) => {
      const row = put(trace);
      if (body.rows[at] !== row.element) body.insertBefore(row.element, body.rows[at] ?? null);
    });
    table.hidden = !rows.size;
  }

  // Where somebody reads, nothing moves until they ask for it.
  function isRead() {
    const selection = getSelection();
    return window.scrollY >= 40 || body.contains(document.activeElement) || body.matches(":hover") || (!selection.isCollapsed && body.contains(selection.anchorNode));
  }

  function takeAgain(answer) {
    const there = new Map(answer.traces.map((trace) => [trace.trace_id, trace]));
    const arrived = answer.traces.filter((trace) => !rows.has(trace.trace_id));
    // Rows that are gone from the answer match no longer, unless newer ones have pushed them out.
    const sure = answer.next ? answer.traces.length - arrived.length : Infinity;
    [...body.rows].forEach((element, at) => {
      const id = element.dataset.trace;
      if (there.has(id)) rows.get(id).update(there.get(id));
      else if (at < sure) drop(id);
    });
    if (!arrived.length) fresh.hidden = true;
    else if (!rows.size || !isRead()) {
      const length = Math.max(PAGE, rows.size);
      replace(answer.traces.slice(0, length));
      if (answer.traces.length > length) read({ quiet: true, limit: Math.min(length, LONGEST) });
      fresh.hidden = true;
    } else {
      const newer = arrived.length > PAGE && answer.next ? `${PAGE} or more` : count(arrived.length);
      const text = `Show ${newer} more ${arrived.length === 1 ? "trace" : "traces"}`;
      if (fresh.textContent !== text) fresh.textContent = text;
      fresh.hidden = false;
    }
  }

  function put(trace) {
    let row = rows.get(trace.trace_id);
    if (row) row.update(trace);
    else {
      row = line(trace);
      rows.set(trace.trace_id, row);
      body.append(row.element);
    }
    return row;
  }

  function drop(id) {
    const { element } = rows.get(id);
    const focused = element.contains(document.activeElement);
    const beside = element.nextElementSibling ?? element.previousElementSibling;
    rows.delete(id);
    element.remove();
    if (focused) beside?.querySelector("a")?.focus({ preventScroll: true });
  }

  // A wait that goes on is read again when it is said to change, and every ten seconds.
  function watch() {
    clearTimeout(changes);
    const soonest = Math.min(...[...rows.values()].map((row) => row.changes()));
    if (soonest < Infinity) changes = setTimeout(() => later(0), Math.min(10_000, Math.max(500, soonest)));
  }

  function later(pause = PAUSE) {
    timer ??= setTimeout(() => {
      timer = null;
      if (closed || document.visibilityState !== "visible") return;
      if (busy) later();
      else read({ again: true });
    }, pause);
  }

  function choose(step) {
    const all = [...body.rows];
    if (!all.length) return;
    const at = all.findIndex((row) => row.contains(document.activeElement));
    const to = at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.max(0, Math.min(all.length - 1, at + step));
    all[to].querySelector("a").focus();
  }

  function leave(element) {
    left = { address: location.pathname + location.search, shown: rows.size, trace: element.dataset.trace };
    history.replaceState({ shown: left.shown, trace: left.trace }, "");
  }

  // The whole row opens its trace, as its link does.
  function click(event) {
    const element = event.target.closest("tbody tr");
    if (!element || event.button > 1) return;
    const link = element.querySelector("a");
    const onLink = event.target.closest("a");
    const elsewhere = event.button === 1 || event.metaKey || event.ctrlKey || event.shiftKey;
    if (!elsewhere) leave(element);
    if (onLink || !getSelection().isCollapsed) return;
    if (elsewhere) window.open(link.href, "_blank", "noopener");
    else link.click();
  }

  read({ limit: Math.min(LONGEST, Math.max(PAGE, back?.shown ?? 0)), quiet: true }).then(() => {
    // Not from somebody who types already.
    if (back?.trace && !document.activeElement?.matches("input, select, textarea")) rows.get(back.trace)?.element.querySelector("a").focus({ preventScroll: Boolean(history.state?.shown) });
  });
  const arrow = (step) => (event) => {
    if (event.target.closest?.("select, button, [role=dialog]")) return;
    choose(step);
  };
  return {
    heard: (kind) => kind === "trace" && later(),
    refresh: () => read({ again: rows.size > 0, quiet: true }),
    keys: { j: () => choose(1), k: () => choose(-1), ArrowDown: arrow(1), ArrowUp: arrow(-1), r: () => read({ again: rows.size > 0 }) },
    close: () => {
      closed = true;
      clearTimeout(timer);
      clearTimeout(changes);
      request?.abort();
      form.close();
    },
  };
}

/** Make the row of a trace, which stays the same element as the trace changes. */
function line(trace) {
  const link = h("a", { "data-link": "" });
  const [start, name, lasted, waited, spans, status] = ["td", "th", "td", "td", "td", "td"].map((tag, at) => h(tag, { role: tag === "th" ? "rowheader" : "cell", scope: tag === "th" ? "row" : null, class: at >= 2 && at <= 4 ? "number" : null }));
  const where = h("span", { class: "where" });
  const sentence = h("span", { class: "sentence" });
  name.append(link, " ", where, " ", sentence);
  const element = h("tr", { role: "row", "data-trace": trace.trace_id }, start, name, lasted, waited, spans, status);
  let shown = "";
  let current = trace;
  let since = Date.now();

  function update(fresh) {
    current = fresh;
    since = Date.now();
    const text = JSON.stringify({ ...fresh, changes_in_ms: null });
    if (text === shown) return;
    shown = text;
    element.className = `is-${fresh.status}`;
    link.href = `/trace/${fresh.trace_id}`;
    if (link.textContent !== fresh.name) link.textContent = fresh.name;
    where.textContent = path(fresh.services);
    where.title = fresh.services.join(" → ");
    sentence.replaceChildren(...prose(fresh.sentence));
    start.replaceChildren(h("time", { datetime: exactly(fresh.start_ns), title: exactly(fresh.start_ns) }, clock(fresh.start_ns)));
    lasted.replaceChildren(h("span", {}, duration(fresh.duration_ms)), shares(fresh.parts ?? {}));
    waited.replaceChildren(...waits(fresh));
    waited.classList.toggle("none", !fresh.queues.length && !fresh.wait_ms);
    spans.textContent = count(fresh.spans);
    status.replaceChildren(...badges(fresh));
  }

  update(trace);
  return {
    element,
    update,
    changes: () => (Object.keys(current.live ?? {}).length ? (current.changes_in_ms === null ? 10_000 : current.changes_in_ms - (Date.now() - since)) : Infinity),
  };
}

// What the critical path was spent on, in the colours of the trace's own page.
const SHARES = [["work", ["client", "web", "worker"]], ["scheduled", ["scheduled"]], ["queue", ["waiting"]], ["gap", ["gap"]]];

function shares(parts) {
  const lengths = SHARES.map(([name, kinds]) => [name, kinds.reduce((sum, kind) => sum + (parts[kind] ?? 0), 0)]);
  return h("span", { class: "share", "aria-hidden": "true" }, lengths.filter(([, ms]) => ms).map(([name, ms]) => h("i", { class: name, style: { "flex-grow": String(ms) } })));
}

// The longest wait of a message, and beside it what all waits add up to, if that is more.
function waits(trace) {
  if (!trace.queues.length && !trace.wait_ms) return ["–"];
  const sum = trace.wait_sum_ms > trace.wait_ms * 1.01 ? h("span", { class: "aside", title: "the waits of all messages added up" }, `sum ${duration(trace.wait_sum_ms)}`) : "";
  const scheduled = trace.scheduled_ms >= 1 ? h("span", { class: "aside", title: "until the message was due" }, `+ ${duration(trace.scheduled_ms)} scheduled`) : "";
  return [h("span", {}, duration(trace.wait_ms)), sum, scheduled];
}

/** The services of a trace, in one line. */
function path(services) {
  const rest = services.length - MOST_SERVICES;
  return services.slice(0, MOST_SERVICES).join(" → ") + (rest > 0 ? ` → ${rest} more` : "");
}

const EXAMPLES = ["status:stuck", "wait>2s", "queue:mail", "duration>500ms", "log:timeout"];

/** Searches that somebody may try. */
function examples() {
  return h("p", { class: "examples" }, "For example: ", EXAMPLES.map((text, at) => [at ? ", " : "", h("a", { href: `/?${new URLSearchParams({ q: text })}`, "data-link": "" }, h("code", {}, text))]));
}

function empty(filtered) {
  if (filtered) return h("div", {}, nothing("No traces match", "Remove a filter, or wait: new traces appear here as they arrive."), examples());
  return nothing(
    "No traces yet",
    "Set this in your processes to send some; they appear here as they arrive. ",
    h("pre", { tabindex: "0", role: "region", "aria-label": "Environment variables" }, `OTEL_EXPORTER_OTLP_ENDPOINT=${location.origin}\nOTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`),
    "For OTLP over gRPC, use the address of ",
    h("code", {}, "--grpc"),
    " (port 4317 by default). You can also open a file with traces, or drop it here.",
  );
}

function filters(given, changed) {
  const field = searchField(given.get("q") ?? "", (_, done) => changed(done));
  const choice = (name, label, options) => h("label", {}, label, h("select", { name, onchange: () => changed(true) }, withGiven(options, given.get(name)).map(([value, shown]) => h("option", { value, selected: (given.get(name) ?? "") === value }, shown))));
  const facets = FACETS.map(([name, label]) => choice(name, label, [["", "Any"]]));
  const others = OTHERS.filter((name) => given.get(name)).map((name) => h("label", {}, name, h("input", { name, value: given.get(name), size: 8, onchange: () => changed(true) })));
  const element = h(
    "form",
    { class: "filters", role: "search", "aria-label": "Traces", onsubmit: (event) => event.preventDefault() },
    field.element,
    h("div", { class: "facets" }, choice("status", "Status", STATUSES), facets, others, choice("since_s", "Time range", [["", "Any time"], ...RANGES]), choice("sort", "Sort by", SORTS), h("button", { type: "button", class: "clear", onclick: clear }, "Clear")),
  );

  function clear() {
    field.set("");
    for (const select of element.querySelectorAll("select")) select.selectedIndex = 0;
    for (const input of element.querySelectorAll(".facets input")) input.closest("label").remove();
    changed(true);
  }

  get("/api/facets").then((known) => {
    for (const [name, , key] of FACETS) {
      const select = element.querySelector(`select[name="${name}"]`);
      const there = new Set([...select.options].map((option) => option.value));
      select.append(...(known[key] || []).filter((value) => !there.has(value)).map((value) => h("option", { value }, value)));
    }
  }, () => {});

  const parameters = () => {
    const found = new URLSearchParams();
    if (field.value()) found.set("q", field.value());
    for (const [name, value] of new FormData(element)) {
      const text = String(value).trim();
      if (text && !(name === "sort" && text === "recent")) found.set(name, name === "trace_id" ? text.toLowerCase() : text);
    }
    return found;
  };
  return {
    element,
    parameters,
    complain: field.complain,
    close: field.close,
    isFiltered: () => [...parameters().keys()].some((name) => name !== "sort"),
  };
}

function withGiven(options, given) {
  return given && !options.some(([value]) => value === given) ? [...options, [given, given]] : options;
}
