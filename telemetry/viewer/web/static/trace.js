// One trace: told in a sentence, then drawn.

import { get } from "./api.js";
import { colorOf } from "./colors.js";
import { detail } from "./detail.js";
import { h, loading, prose, toast } from "./dom.js";
import { count, duration, tick, timeOf } from "./format.js";
import { severity } from "./logs.js";
import { badges } from "./status.js";
import { backToList } from "./traces.js";
import { waterfall } from "./waterfall.js";

const PAUSE = 120;
const AGAIN = 1000;

/** Show the trace, and the span if one is named, in `view`. */
export function showTrace(view, [traceId, spanId], go) {
  document.title = `Trace ${traceId.slice(0, 8)} · queuehop`;
  const id = traceId.toLowerCase();
  const head = header(id, { goTo: (span) => { drawing?.goTo(span); choose(span); }, copyJson });
  const place = h("div", { class: "trace-body" });
  const side = h("aside", { class: "detail", "aria-label": "Span details", hidden: true });
  const kept = history.state?.trace === id ? history.state.waterfall : null;
  let drawing = null;
  let closed = false;
  let timer = null;
  let changes = null;
  let turning = null;
  let saving = null;
  let version = 0;
  let orphans = new Map();
  place.append(loading());
  view.append(head.element, place);

  async function read() {
    const mine = ++version;
    let trace;
    let logs;
    try {
      [trace, logs] = await Promise.all([get(`/api/traces/${id}/hops`), get(`/api/traces/${id}/logs`)]);
    } catch (error) {
      if (closed || mine !== version) return;
      if (!drawing) place.replaceChildren(h("h1", {}, error.status === 404 ? "Trace not found" : "The trace cannot be shown"), h("p", { class: "empty" }, error.message, " ", h("a", { href: "/", "data-link": "" }, "All traces")));
      else if (error.status) toast(error.message);
      return;
    }
    if (closed || mine !== version) return;
    addLogs(trace, logs.logs);
    const known = orphans;
    orphans = new Map(trace.rows.map((row) => [row.id, row.missing_parent]));
    const shown = side.hidden ? undefined : side.dataset.span;
    if (shown && known.get(shown) !== orphans.get(shown)) choose(shown, false);
    if (trace.root) document.title = `${trace.root.name} · queuehop`;
    head.tell(trace);
    if (drawing) drawing.update(trace);
    else {
      drawing = waterfall(trace, { chosen: spanId?.toLowerCase() ?? null, open: choose, moved: turn, kept, changed: save, search });
      place.replaceChildren(drawing.element, side);
      if (spanId) choose(spanId.toLowerCase(), false);
      drawing.focus();
    }
    clearTimeout(changes);
    // A wait that is still going on grows. So the page computes all its numbers at one moment.
    const soonest = Math.min(trace.changes_in_ms === null ? Infinity : trace.changes_in_ms + 50, Object.keys(trace.live).some((state) => state !== "expired") ? AGAIN * Math.max(1, trace.spans / 500) : Infinity);
    if (soonest < Infinity) changes = setTimeout(read, soonest);
  }

  // The names of the spans are found without it.
  const search = (text) => get(`/api/traces/${id}/matches?${new URLSearchParams({ q: text })}`).then((answer) => answer.span_ids, () => []);

  // The panel, once open, follows the row.
  function turn(span) {
    if (side.hidden) return;
    clearTimeout(turning);
    turning = setTimeout(() => choose(span), PAUSE);
  }

  function choose(span, navigate = true) {
    clearTimeout(turning);
    if (navigate) history.replaceState(history.state, "", `/trace/${id}/${span}`);
    detail(side, id, span, { orphaned: orphans.get(span), close, copy });
  }

  function close() {
    side.hidden = true;
    history.replaceState(history.state, "", `/trace/${id}`);
    drawing?.focus();
  }

  // What is folded and zoomed is there again for whoever comes back.
  function save() {
    clearTimeout(saving);
    saving = setTimeout(() => drawing && history.replaceState({ ...history.state, trace: id, waterfall: drawing.state() }, ""), 200);
  }

  async function copyJson() {
    try {
      const answer = await get(`/api/traces/${id}`);
      copy(JSON.stringify(answer, null, 2), "trace as OTLP JSON");
    } catch (error) {
      toast(error.message);
    }
  }

  read();
  return {
    heard(kind, row) {
      if (kind !== "trace" || row.trace_id !== id) return;
      timer ??= setTimeout(() => {
        timer = null;
        if (!closed) read();
      }, 300);
    },
    refresh: read,
    keys: {
      c: () => copy(id, "trace id"),
      o: copyJson,
      d: () => document.querySelector("a[download]")?.click(),
      p: () => drawing?.traceparent((text) => copy(text, "traceparent"), id),
      n: () => drawing?.next(),
      N: () => drawing?.previous(),
      "+": () => drawing?.zoomIn(),
      "=": () => drawing?.zoomIn(),
      "-": () => drawing?.zoomOut(),
      0: () => drawing?.zoomReset(),
      "*": () => drawing?.toggleAll(),
      u: () => backToList(go),
      Escape: () => !side.hidden && close(),
    },
    close() {
      closed = true;
      for (const running of [timer, changes, turning, saving]) clearTimeout(running);
      drawing?.close();
    },
  };
}

/** Give each row its log records: when, how severe, and what they say. */
function addLogs(trace, logs) {
  const ofSpans = Map.groupBy(logs, (log) => log.span_id);
  const at = (log) => Number(BigInt(log.time_ns) - BigInt(trace.start_ns)) / 1e6;
  for (const row of trace.rows) {
    if (row.kind === "span") row.logs = (ofSpans.get(row.id) ?? []).map((log) => ({ ms: at(log), severity: severity(log), text: `${log.level} ${log.text}` }));
  }
}

/** What stands above the drawing; each part of it is made anew only when it changes. */
function header(id, { goTo, copyJson }) {
  const parts = Object.fromEntries(["title", "sentence", "path", "legend", "facts", "error", "linked", "problems"].map((name) => [name, part(name)]));
  const actions = h("p", { class: "actions" }, h("button", { type: "button", onclick: () => copy(id, "trace id"), title: "Copy trace id (c)" }, "Copy trace id"), h("button", { type: "button", onclick: copyJson, title: "Copy OTLP JSON (o)" }, "Copy OTLP JSON"), h("a", { class: "button", href: `/api/traces/${id}?download=1`, download: `trace-${id}.json`, title: "Download (d)" }, "Download"));
  const element = h("header", { class: "trace-head", hidden: true }, parts.title.element, parts.sentence.element, parts.path.element, parts.legend.element, h("div", { class: "about" }, parts.facts.element, actions), parts.error.element, parts.linked.element, parts.problems.element);

  function part(name) {
    const tag = { sentence: "h1", title: "p", facts: "p", legend: "ul", error: "p", problems: "ul", linked: "ul" }[name] ?? "div";
    const place = h(tag, { class: name, hidden: true });
    let last = null;
    return {
      element: place,
      show(value, children, properties = {}) {
        const text = JSON.stringify(value);
        if (text === last) return;
        last = text;
        const made = children();
        place.hidden = !made.length;
        for (const [key, it] of Object.entries(properties)) place.setAttribute(key, it);
        place.replaceChildren(...made);
      },
    };
  }

  function tell(trace) {
    element.hidden = false;
    const root = trace.root;
    parts.title.show(root, () => (root ? [h("strong", {}, root.name), h("span", {}, root.service), root.route && !root.name.includes(root.route) ? h("span", {}, `route ${root.route}`) : ""] : []));
    parts.sentence.show(trace.sentence, () => prose(trace.sentence));
    parts.path.show(trace.parts, () => trace.parts.map(piece), { role: "img", "aria-label": `Critical path: ${trace.parts.map((it) => `${named(it)} ${tick(it.shown_ms)}`).join(", ")}` });
    const rest = trace.services.filter(({ name }) => !trace.parts.some((it) => it.service === name));
    const hasLogs = trace.rows.some((row) => row.logs?.length);
    parts.legend.show([trace.parts, rest, hasLogs], () => [
      ...trace.parts.map((it) => h("li", {}, h("i", { class: `swatch ${shade(it)}`, "aria-hidden": "true" }), `${named(it)} ${tick(it.shown_ms)}${it.prefetch_ms >= 0.05 ? ` (${duration(it.prefetch_ms)} for a free process)` : ""}`)),
      ...rest.map(({ name, index }) => h("li", {}, h("i", { class: `swatch ${colorOf(index)}`, "aria-hidden": "true" }), name)),
      h("li", {}, h("i", { class: "swatch critical", "aria-hidden": "true" }), "critical path"),
      hasLogs ? h("li", {}, h("i", { class: "swatch log", "aria-hidden": "true" }), "log record") : "",
    ]);
    const cut = trace.stored_spans > trace.spans;
    parts.facts.show([trace.status, trace.live, trace.start_ns, trace.spans, trace.stored_spans], () => [
      h("span", {}, badges(trace)),
      h("span", {}, "Start ", timeOf(trace.start_ns)),
      h("span", {}, `${count(trace.stored_spans)} ${trace.stored_spans === 1 ? "span" : "spans"}`),
      h("span", {}, `${count(trace.services.length)} ${trace.services.length === 1 ? "service" : "services"}`),
      h("code", { class: "id" }, id),
      cut ? h("strong", { class: "late" }, `Only ${count(trace.spans)} of them are shown. The download has all.`) : "",
    ]);
    parts.error.show(trace.error, () => (trace.error ? [h("strong", {}, "First error: "), h("span", {}, trace.error.message || "no message"), " ", h("a", { href: `/trace/${id}/${trace.error.id}`, onclick: (event) => { if (event.metaKey || event.ctrlKey || event.shiftKey) return; event.preventDefault(); goTo(trace.error.id); } }, `${trace.error.name} (${trace.error.service})`)] : []));
    parts.linked.show(trace.linked, () => trace.linked.map((link) => h("li", {}, link.relation === "picked up by" ? "Picked up by → " : "Sent by ← ", h("a", { href: `/trace/${link.trace_id}/${link.span_id}`, "data-link": "" }, `${link.name} (${link.service})`), link.relation === "picked up by" ? `, ${duration(link.later_ms)} later` : `, ${duration(link.later_ms)} earlier`)), { "aria-label": "Linked traces" });
    parts.problems.show(trace.problems, () => trace.problems.map((text) => h("li", {}, prose(text))), { "aria-label": "Problems" });
  }

  return { element, tell };
}

const WORK = ["web", "client", "worker"];

/** The words for a part of the critical path: those of the sentence, with the service. */
function named(part) {
  if (part.kind === "waiting") return part.queue ? `waiting in ${part.queue}` : "waiting in the queue";
  return WORK.includes(part.kind) && part.service ? `${part.service} (${part.name})` : part.name;
}

const shade = (part) => (WORK.includes(part.kind) ? colorOf(part.service_index) : part.kind === "waiting" ? "queue" : part.kind);

function piece(part) {
  const title = `${named(part)}: ${tick(part.shown_ms)}`;
  const style = { "flex-grow": String(part.ms) };
  if (part.kind !== "waiting") return h("i", { class: `part ${shade(part)}`, style, title });
  return h("span", { class: "part", style, title }, h("i", { class: "queue", style: { "flex-grow": String(part.ms - part.prefetch_ms) } }), h("i", { class: "prefetch", style: { "flex-grow": String(part.prefetch_ms) } }));
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`Copied the ${what}`);
  } catch {
    toast(`The browser does not let this page copy. The ${what}: ${text.slice(0, 300)}`);
  }
}
