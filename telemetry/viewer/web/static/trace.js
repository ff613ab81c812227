// One trace: told in a sentence, then drawn.

import { get } from "./api.js";
import { detail } from "./detail.js";
import { h, prose, toast } from "./dom.js";
import { count, duration, exactly } from "./format.js";
import { waterfall } from "./waterfall.js";

/** Show the trace, and the span if one is named, in `view`. */
export function showTrace(view, [traceId, spanId], go) {
  document.title = `Trace ${traceId.slice(0, 8)} · queuehop`;
  const id = traceId.toLowerCase();
  const head = h("header", { class: "trace-head" });
  const place = h("div", { class: "trace-body" });
  const side = h("aside", { class: "detail", "aria-label": "The chosen span", hidden: true });
  let drawing = null;
  let closed = false;
  let timer = null;
  let version = 0;
  let orphans = new Map();
  view.append(head, place);

  async function read() {
    const mine = ++version;
    let trace;
    try {
      trace = await get(`/api/traces/${id}/hops`);
    } catch (error) {
      if (drawing) toast(error.message);
      else if (!closed) {
        place.replaceChildren(h("p", { class: "empty" }, error.message, " ", h("a", { href: "/", "data-link": "" }, "All traces")));
      }
      return;
    }
    if (closed || mine !== version) return;
    const known = orphans;
    orphans = new Map(trace.rows.map((row) => [row.id, row.missing_parent]));
    const shown = side.hidden ? undefined : side.dataset.span;
    if (known.get(shown) !== orphans.get(shown)) choose(shown, false);
    tell(trace);
    if (drawing) drawing.update(trace);
    else {
      drawing = waterfall(trace, { chosen: spanId?.toLowerCase() ?? null, open: choose });
      place.replaceChildren(drawing.element, side);
      if (spanId) choose(spanId.toLowerCase(), false);
      drawing.focus();
    }
  }

  function tell(trace) {
    const parts = Object.entries(trace.critical_ms).filter(([, ms]) => ms > 0);
    head.replaceChildren(
      h("h1", { class: "sentence" }, prose(trace.sentence)),
      h("div", { class: "path", role: "img", "aria-label": `Where the time went: ${parts.map(([what, ms]) => `${WORDS[what] || what} ${duration(ms)}`).join(", ")}` }, parts.map(([what, ms]) => h("i", { class: `part ${what}`, style: { "flex-grow": String(ms) }, title: `${WORDS[what] || what}: ${duration(ms)}` }))),
      h("p", { class: "legend" }, parts.map(([what, ms]) => h("span", {}, h("i", { class: `swatch ${what}`, "aria-hidden": "true" }), `${WORDS[what] || what} ${duration(ms)}`)), h("span", { class: "critical-key" }, h("i", { class: "swatch critical", "aria-hidden": "true" }), "critical path")),
      h(
        "p",
        { class: "facts" },
        h("span", { class: `badge ${trace.status}` }, trace.status === "broken" ? "parent missing" : trace.status),
        h("code", { class: "id" }, id),
        h("time", { datetime: exactly(trace.start_ns) }, exactly(trace.start_ns)),
        h("span", {}, `${count(trace.rows.filter((row) => row.kind === "span").length)} spans`),
        h("span", { class: "actions" }, h("button", { type: "button", onclick: () => copy(id, "trace id"), title: "c" }, "Copy trace id"), h("button", { type: "button", onclick: copyJson, title: "o" }, "Copy OTLP JSON"), h("a", { class: "button", href: `/api/traces/${id}?download=1`, download: `trace-${id}.json`, title: "d" }, "Download")),
      ),
      trace.problems.length ? h("ul", { class: "problems", "aria-label": "What is wrong with this trace" }, trace.problems.map((text) => h("li", {}, text))) : "",
    );
  }

  function choose(span, navigate = true) {
    if (navigate) history.replaceState({}, "", `/trace/${id}/${span}`);
    detail(side, id, span, { orphaned: orphans.get(span), close, copy });
  }

  function close() {
    side.hidden = true;
    history.replaceState({}, "", `/trace/${id}`);
    drawing?.focus();
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
      "*": () => drawing?.toggleAll(),
      u: () => go("/"),
      Escape: () => !side.hidden && close(),
    },
    close() {
      closed = true;
      clearTimeout(timer);
      drawing?.close();
    },
  };
}

/** What each part of the critical path is called. */
export const WORDS = { web: "web", client: "client", scheduled: "until it was due", queue: "in the queue", prefetch: "for a free process", worker: "worker", other: "other", gap: "between spans" };

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`Copied the ${what}`);
  } catch {
    toast(`The browser does not let this page copy. The ${what}: ${text.slice(0, 300)}`);
  }
}
