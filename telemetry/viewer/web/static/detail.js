// All that one span says.

import { get } from "./api.js";
import { breakable, h } from "./dom.js";
import { duration, timeOf } from "./format.js";
import { lines } from "./logs.js";
import { STATUS_WORDS } from "./status.js";

/** Fill `side` with the span and show it; `orphaned` says why its parent is not here, if it is not. */
export async function detail(side, trace, id, { orphaned, close, copy }) {
  const isOther = side.hidden || side.dataset.span !== id;
  side.hidden = false;
  side.setAttribute("aria-busy", "true");
  side.dataset.span = id;
  let span;
  let logs;
  try {
    [span, logs] = await Promise.all([get(`/api/traces/${trace}/spans/${id}`), get(`/api/traces/${trace}/logs?span_id=${id}`)]);
  } catch (error) {
    if (side.dataset.span === id) side.replaceChildren(h("p", { class: "empty" }, error.message), button("Close", close));
    return;
  } finally {
    side.removeAttribute("aria-busy");
  }
  if (side.dataset.span !== id) return;
  const exceptions = span.events.filter((event) => event.name === "exception");
  const events = span.events.filter((event) => event.name !== "exception");
  side.replaceChildren(
    h("div", { class: "detail-head" }, h("h2", {}, span.name), button("Close", close)),
    h("p", { class: "facts" }, h("span", { class: "badge" }, span.kind), span.status === "unset" ? "" : h("span", { class: `badge ${span.status}` }, STATUS_WORDS[span.status]), h("span", {}, duration(span.duration_ms)), h("span", {}, span.service)),
    ...exceptions.map(exception),
    span.message && !exceptions.some((event) => tells(event, span.message)) ? h("p", { class: "message" }, span.message) : "",
    lines(logs.logs, span.start_ns, logs.more),
    orphaned ? h("p", { class: "message" }, `Parent missing: ${orphaned}`) : "",
    links("Links", span.links, (link) => (link.known ? to(link) : h("span", {}, `trace ${link.trace_id}, span ${link.span_id} (not here)`))),
    links("Linked from", span.linked_from, (link) => [to(link), `, ${duration(Math.max(0, link.later_ms))} later`]),
    h("p", { class: "actions" }, button("Copy traceparent", () => copy(span.traceparent, "traceparent")), button("Copy span id", () => copy(span.span_id, "span id"))),
    section("Attributes", span.attributes),
    events.length ? h("section", {}, h("h3", {}, "Events"), events.map((event) => h("details", {}, h("summary", {}, event.name, h("span", { class: "at" }, ` after ${duration(event.offset_ms)}`)), table(event.attributes)))) : "",
    section("Resource", span.resource),
    section("Span", { "span id": span.span_id, "parent span id": span.parent_span_id || "none", start: timeOf(span.start_ns), scope: span.scope, traceparent: span.traceparent, ...dropped(span.dropped) }),
  );
  if (isOther) side.scrollTop = 0;
}

function exception(event) {
  const { "exception.type": type = "", "exception.message": message = "", "exception.stacktrace": stack, ...rest } = event.attributes;
  return h("section", { class: "exception" }, h("h3", {}, type || "Exception", h("span", { class: "at" }, ` after ${duration(event.offset_ms)}`)), message ? h("p", { class: "message" }, String(message)) : "", stack ? h("pre", { tabindex: "0", role: "region", "aria-label": "Stack trace" }, String(stack)) : "", Object.keys(rest).length ? table(rest) : "");
}

/** Whether an exception has what the status says already: its message, its type, or both. */
function tells(event, text) {
  const { "exception.type": type = "", "exception.message": message = "" } = event.attributes;
  const short = String(type).split(".").at(-1);
  return [message, type, short, `${type}: ${message}`, `${short}: ${message}`].includes(text);
}

function links(title, all, text) {
  return all.length ? h("section", {}, h("h3", {}, title), h("ul", { class: "links" }, all.map((link) => h("li", {}, text(link), Object.keys(link.attributes ?? {}).length ? table(link.attributes) : "")))) : "";
}

const to = (link) => h("a", { href: `/trace/${link.trace_id}/${link.span_id}`, "data-link": "" }, `${link.name}${link.service ? ` (${link.service})` : ""}`);

function dropped(counts) {
  const lost = Object.entries(counts).filter(([, count]) => count);
  return lost.length ? { "dropped by the SDK": lost.map(([what, count]) => `${count} ${what}`).join(", ") } : {};
}

function button(text, onclick) {
  return h("button", { type: "button", onclick }, text);
}

function section(title, values) {
  return Object.keys(values).length ? h("section", {}, h("h3", {}, title), table(values)) : "";
}

function table(values) {
  const names = Object.keys(values).sort();
  return h("table", { class: "attributes" }, h("tbody", {}, names.map((name) => h("tr", {}, h("th", { scope: "row" }, breakable(name)), h("td", {}, show(name, values[name]))))));
}

// How many milliseconds a number of such an attribute is, by the end of its name.
const UNITS = [[/^celery\.wait\.|(_|\.)(s|sec|seconds)$/, 1000], [/(_|\.)(ms|millis|milliseconds|latency)$/, 1], [/(_|\.)(us|micros)$/, 1e-3], [/(_|\.)(ns|nanos)$/, 1e-6]];

function show(name, value) {
  if (value instanceof Node) return value;
  if (typeof value === "number") {
    const unit = UNITS.find(([pattern]) => pattern.test(name));
    if (unit) return h("span", { title: String(value) }, duration(value * unit[1]));
  }
  if (/^celery\.task\.(eta|expires)$/.test(name) && !Number.isNaN(Date.parse(value))) return timeOf(String(BigInt(Date.parse(value)) * 1000000n));
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > 300 || text.includes("\n") ? h("pre", { tabindex: "0", role: "region", "aria-label": name }, text) : text;
}
