// All that one span says.

import { get } from "./api.js";
import { h } from "./dom.js";
import { duration, exactly } from "./format.js";

/** Fill `side` with the span and show it; `orphaned` says why its parent is not here, if it is not. */
export async function detail(side, trace, id, { orphaned, close, copy }) {
  side.hidden = false;
  side.setAttribute("aria-busy", "true");
  side.dataset.span = id;
  let span;
  try {
    span = await get(`/api/traces/${trace}/spans/${id}`);
  } catch (error) {
    side.replaceChildren(h("p", { class: "empty" }, error.message), button("Close", close));
    return;
  } finally {
    side.removeAttribute("aria-busy");
  }
  if (side.dataset.span !== id) return;
  side.replaceChildren(
    h("div", { class: "detail-head" }, h("h2", {}, span.name), button("Close", close)),
    h("p", { class: "facts" }, h("span", { class: "badge" }, span.kind), h("span", { class: `badge ${span.status}` }, span.status), h("span", {}, duration(span.duration_ms)), h("span", {}, span.service)),
    span.message ? h("p", { class: "message" }, span.message) : "",
    orphaned ? h("p", { class: "message" }, `Parent missing: ${orphaned}`) : "",
    h("p", { class: "actions" }, button("Copy traceparent", () => copy(span.traceparent, "traceparent")), button("Copy span id", () => copy(span.span_id, "span id"))),
    section("Attributes", span.attributes),
    span.events.length ? h("section", {}, h("h3", {}, "Events"), span.events.map((event) => h("details", { open: event.name === "exception" }, h("summary", {}, event.name, h("span", { class: "at" }, ` after ${duration(event.offset_ms)}`)), table(event.attributes)))) : "",
    span.links.length ? h("section", {}, h("h3", {}, "Links"), h("ul", { class: "links" }, span.links.map((link) => h("li", {}, link.known ? h("a", { href: `/trace/${link.trace_id}/${link.span_id}`, "data-link": "" }, `${link.trace_id.slice(0, 8)}… ${link.span_id}`) : h("span", {}, `${link.trace_id} ${link.span_id} (not here)`), Object.keys(link.attributes).length ? table(link.attributes) : "")))) : "",
    section("Resource", span.resource),
    section("Span", { span_id: span.span_id, parent_span_id: span.parent_span_id || "none", began: exactly(span.start_ns), scope: span.scope, traceparent: span.traceparent, ...dropped(span.dropped) }),
  );
}

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
  return h("table", { class: "attributes" }, h("tbody", {}, names.map((name) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, show(values[name]))))));
}

function show(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > 300 || text.includes("\n") ? h("pre", {}, text) : text;
}
