// The head of a trace: its sentence, the critical path, facts, errors, links and problems.

import { colorOf } from "./colors.js";
import { h, prose, shortened } from "./dom.js";
import { counted, count, duration, tick, timeOf } from "./format.js";
import { pageOf } from "./queues.js";
import { badges } from "./status.js";

const WORK = ["web", "client", "worker"];
// A shorter share of a wait is not in the legend, in milliseconds.
const SHORTEST = 0.05;
const TAGS = { title: "p", sentence: "h1", path: "div", legend: "ul", facts: "p", error: "p", linked: "ul", problems: "ul" };

/** Make the head of the trace `id`. `show(trace)` fills it; a part is made again only when it changes. */
export function traceHead(id, { goTo, copyId, copyJson }) {
  const parts = Object.fromEntries(Object.entries(TAGS).map(([name, tag]) => [name, part(tag, name)]));
  const { title, sentence, path, legend, facts, error, linked, problems } = parts;
  const element = h("header", { class: "trace-head", hidden: true }, title.element, sentence.element, path.element, legend.element, h("div", { class: "about" }, facts.element, actions(id, copyId, copyJson)), error.element, linked.element, problems.element);

  function show(trace) {
    element.hidden = false;
    const others = trace.services.filter(({ name }) => !trace.parts.some((it) => it.service === name));
    const hasLogs = trace.rows.some((row) => row.logs?.length);
    title.show(trace.root, () => titleOf(trace.root));
    sentence.show(trace.sentence, () => prose(trace.sentence));
    const measured = trace.parts.map((it) => ({ ...it, length: lengthOf(it, trace.duration_ms) }));
    path.show(measured, () => measured.map(piece), { role: "img", "aria-label": `Critical path: ${measured.map((it) => `${named(it)} ${it.length}`).join(", ")}` });
    legend.show([measured, others, hasLogs], () => legendOf(measured, others, hasLogs));
    facts.show([trace.status, trace.live, trace.start_ns, trace.spans, trace.stored_spans], () => factsOf(trace, id));
    error.show(trace.error, () => (trace.error ? errorOf(trace.error, id, goTo) : []));
    linked.show([trace.linked, trace.more_linked], () => linksOf(trace), { "aria-label": "Linked traces" });
    problems.show(trace.problems, () => trace.problems.map((text) => h("li", {}, prose(text, queueLink))), { "aria-label": "Problems" });
  }

  return { element, show };
}

function part(tag, name) {
  const element = h(tag, { class: name, hidden: true });
  let last = null;
  function show(value, children, properties = {}) {
    const text = JSON.stringify(value);
    if (text === last) return;
    last = text;
    const made = children();
    element.hidden = !made.length;
    for (const [key, it] of Object.entries(properties)) element.setAttribute(key, it);
    element.replaceChildren(...made);
  }
  return { element, show };
}

function actions(id, copyId, copyJson) {
  return h(
    "p",
    { class: "actions" },
    h("button", { type: "button", onclick: copyId, title: "Copy trace id (c)" }, "Copy trace id"),
    h("button", { type: "button", onclick: copyJson, title: "Copy OTLP JSON (o)" }, "Copy OTLP JSON"),
    h("a", { class: "button", href: `/api/traces/${id}?download=1`, download: `trace-${id}.json`, title: "Download (d)" }, "Download"),
  );
}

function queueLink(name) {
  return h("a", { href: pageOf(name, null), "data-link": "" }, h("code", {}, name));
}

function titleOf(root) {
  if (!root) return [];
  return [h("strong", {}, root.name), h("span", {}, root.service), root.route && !root.name.includes(root.route) ? h("span", {}, `route ${root.route}`) : ""];
}

function factsOf(trace, id) {
  const isCut = trace.stored_spans > trace.spans;
  return [
    h("span", {}, badges(trace)),
    h("span", {}, "Start ", timeOf(trace.start_ns)),
    h("span", {}, counted(trace.stored_spans, "span")),
    h("span", {}, counted(trace.services.length, "service")),
    h("code", { class: "id" }, id),
    isCut ? h("strong", { class: "late" }, `Only ${count(trace.spans)} of them are shown. The download has all.`) : "",
  ];
}

function errorOf(error, id, goTo) {
  const click = (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    goTo(error.id);
  };
  const link = h("a", { href: `/trace/${id}/${error.id}`, onclick: click, title: error.name }, `${shortened(error.name)} (${shortened(error.service)})`);
  return [h("span", {}, h("strong", {}, "First error"), " in ", link, `: ${error.message || "no message"}`)];
}

function linksOf(trace) {
  const more = trace.more_linked;
  return [...trace.linked.map(linkedTrace), ...(more ? [h("li", {}, `${counted(more, "more trace")}: see the links in the details of the span`)] : [])];
}

function linkedTrace(link) {
  const isLater = link.relation === "picked up by";
  return h("li", {}, isLater ? "Picked up by → " : "Sent by ← ", h("a", { href: `/trace/${link.trace_id}/${link.span_id}`, "data-link": "" }, `${link.name} (${link.service})`), `, ${duration(link.later_ms)} ${isLater ? "later" : "earlier"}`);
}

function legendOf(parts, others, hasLogs) {
  const entry = (kind, text) => h("li", {}, h("i", { class: `swatch ${kind}`, "aria-hidden": "true" }), h("span", {}, text));
  const prefetched = (it) => (it.prefetch_ms >= SHORTEST ? ` (${tick(it.prefetch_ms)} prefetched)` : "");
  return [
    ...parts.map((it) => entry(shade(it), `${named(it)} ${it.length}${prefetched(it)}`)),
    ...others.map(({ name, index }) => entry(colorOf(index), name)),
    entry("critical", "critical path"),
    hasLogs ? entry("log", "log record") : "",
  ];
}

// The second unit of a duration, which is not shown if it is zero: 2 min.
const SECOND_UNIT = { min: "s", h: "min", d: "h" };

/** The unit to which a duration is rounded. */
function unitOf(text) {
  const [, first, , second] = text.split(/\s/);
  return second ?? SECOND_UNIT[first] ?? first;
}

/** The length of a part: rounded as in the sentence, or more exactly if it is in a smaller unit than the total. */
function lengthOf(part, total) {
  return tick(unitOf(duration(part.ms)) === unitOf(duration(total)) ? part.shown_ms : part.ms);
}

/** A part of the critical path as the sentence names it, with its service. */
function named(part) {
  if (part.kind === "waiting") return part.queue ? `waiting in ${part.queue}` : "waiting in the queue";
  return WORK.includes(part.kind) && part.service ? `${part.service} (${part.name})` : part.name;
}

const shade = (part) => (WORK.includes(part.kind) ? colorOf(part.service_index) : part.kind === "waiting" ? "queue" : part.kind);

function piece(part) {
  const title = `${named(part)}: ${part.length}`;
  const style = { "flex-grow": String(part.ms) };
  if (part.kind !== "waiting") return h("i", { class: `part ${shade(part)}`, style, title });
  return h("span", { class: "part", style, title }, h("i", { class: "queue", style: { "flex-grow": String(part.ms - part.prefetch_ms) } }), h("i", { class: "prefetch", style: { "flex-grow": String(part.prefetch_ms) } }));
}
