// The details of one span, in the panel beside the waterfall.

import { get } from "./api.js";
import { h, shortened } from "./dom.js";
import { duration, timeOf } from "./format.js";
import { logSection } from "./log_lines.js";
import { STATUS_WORDS } from "./status.js";
import { attributes, longText } from "./table.js";

/** Show the span in the panel `side`. `missingParent` is the reason why its parent is missing, if it is. */
export async function detail(side, trace, id, { missingParent, close, copy }) {
  const isOther = side.hidden || side.dataset.span !== id;
  side.hidden = false;
  side.setAttribute("aria-busy", "true");
  side.dataset.span = id;
  delete side.dataset.failed;
  let span;
  let logs;
  try {
    [span, logs] = await Promise.all([get(`/api/traces/${trace}/spans/${id}`), get(`/api/traces/${trace}/logs?span_id=${id}`)]);
  } catch (error) {
    if (side.dataset.span !== id) return;
    side.dataset.failed = "";
    side.replaceChildren(h("p", { class: "empty" }, error.message), button("Close", close));
    return;
  } finally {
    side.removeAttribute("aria-busy");
  }
  if (side.dataset.span !== id) return;
  side.replaceChildren(...sections(span, logs, { missingParent, close, copy }));
  if (isOther) side.scrollTop = 0;
}

function sections(span, logs, { missingParent, close, copy }) {
  const exceptions = span.events.filter((event) => event.name === "exception");
  const events = span.events.filter((event) => event.name !== "exception");
  return [
    h("div", { class: "detail-head" }, h("h2", {}, shortened(span.name)), button("Close", close)),
    h("p", { class: "facts" }, h("span", { class: "badge" }, span.kind), span.status === "unset" ? "" : h("span", { class: `badge ${span.status}` }, STATUS_WORDS[span.status]), h("span", {}, duration(span.duration_ms)), h("span", {}, shortened(span.service))),
    ...exceptions.map(exception),
    span.message && !exceptions.some((event) => repeats(event, span.message)) ? h("p", { class: "message" }, span.message) : "",
    logSection(logs.logs, span.start_ns, logs.more),
    missingParent ? h("p", { class: "message" }, `Parent missing: ${missingParent}`) : "",
    links("Links", span.links, (link) => (link.known ? linkTo(link) : h("span", {}, `trace ${link.trace_id}, span ${link.span_id} (not stored here)`))),
    links("Linked from", span.linked_from, (link) => [linkTo(link), `, ${duration(Math.max(0, link.later_ms))} later`]),
    h("p", { class: "actions" }, button("Copy traceparent", () => copy(span.traceparent, "traceparent")), button("Copy span id", () => copy(span.span_id, "span id"))),
    section("Attributes", span.attributes),
    events.length ? h("section", {}, h("h3", {}, "Events"), events.map((event) => h("details", {}, h("summary", {}, event.name, h("span", { class: "at" }, ` after ${duration(event.offset_ms)}`)), attributes(event.attributes)))) : "",
    section("Resource", span.resource),
    section("Span", { ...(shortened(span.name) === span.name ? {} : { name: span.name }), "span id": span.span_id, "parent span id": span.parent_span_id || "none", start: timeOf(span.start_ns), scope: span.scope, traceparent: span.traceparent, ...dropped(span.dropped) }),
  ];
}

function exception(event) {
  const { "exception.type": type = "", "exception.message": message = "", "exception.stacktrace": stack, "exception.escaped": escaped, ...others } = event.attributes;
  // This attribute is deprecated, and False says nothing.
  const rest = String(escaped).toLowerCase() === "true" ? { ...others, "exception.escaped": escaped } : others;
  return h(
    "section",
    { class: "exception" },
    h("h3", {}, String(type) || "Exception", h("span", { class: "at" }, ` after ${duration(event.offset_ms)}`)),
    message ? h("p", { class: "message" }, String(message)) : "",
    stack ? longText("Stack trace", stack) : "",
    Object.keys(rest).length ? attributes(rest) : "",
  );
}

/** Whether an exception has the text of the status already: its message, its type, or both. */
function repeats(event, text) {
  const { "exception.type": type = "", "exception.message": message = "" } = event.attributes;
  const short = String(type).split(".").at(-1);
  return [message, type, short, `${type}: ${message}`, `${short}: ${message}`].includes(text);
}

function links(title, all, content) {
  return all.length ? h("section", {}, h("h3", {}, title), h("ul", { class: "links" }, all.map((link) => h("li", {}, content(link), Object.keys(link.attributes ?? {}).length ? attributes(link.attributes) : "")))) : "";
}

const linkTo = (link) => h("a", { href: `/trace/${link.trace_id}/${link.span_id}`, "data-link": "" }, `${link.name}${link.service ? ` (${link.service})` : ""}`);

function dropped(counts) {
  const lost = Object.entries(counts).filter(([, count]) => count);
  return lost.length ? { "dropped by the SDK": lost.map(([what, count]) => `${count} ${what}`).join(", ") } : {};
}

function button(text, onclick) {
  return h("button", { type: "button", onclick }, text);
}

function section(title, values) {
  return Object.keys(values).length ? h("section", {}, h("h3", {}, title), attributes(values)) : "";
}
