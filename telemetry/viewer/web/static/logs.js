// Log records: the lines of a span, and a page of those that have none.

import { get } from "./api.js";
import { h, loading, nothing } from "./dom.js";
import { duration, timeOf } from "./format.js";
import { everySeconds } from "./polling.js";

const LEVELS = [["", "Any"], ["5", "DEBUG"], ["9", "INFO"], ["13", "WARN"], ["17", "ERROR"], ["21", "FATAL"]];
const PAUSE = 250;

/** The word for how severe a log record is, which the style sheet knows. */
export const severity = (log) => (log.severity >= 17 ? "error" : log.severity >= 13 ? "warn" : "");

/** A section with the lines of a span that began at `startNs`. */
export function lines(logs, startNs, more) {
  if (!logs.length) return "";
  const at = (log) => Number(BigInt(log.time_ns) - BigInt(startNs)) / 1e6;
  return h(
    "section",
    { class: "log-lines" },
    h("h3", {}, "Logs"),
    h("ol", {}, logs.map((log) => h("li", {}, line(log, h("span", { class: "at", title: log.logger }, offset(at(log))))))),
    more ? h("p", { class: "late" }, `Only the first ${logs.length} are shown.`) : "",
  );
}

const offset = (ms) => (ms < 0 ? `${duration(-ms)} before` : `+${duration(ms)}`);

/** A line that opens to its attributes, if it has some. */
function line(log, when) {
  const { "exception.stacktrace": stack, "exception.type": type, "exception.message": message, ...rest } = log.attributes;
  const head = [when, " ", h("span", { class: "level" }, h("span", { class: `badge ${severity(log)}` }, log.level || "LOG")), " ", h("span", { class: "log-text" }, log.text)];
  return h(
    "details",
    {},
    h("summary", {}, head),
    type || message ? h("p", { class: "message" }, [type, message].filter(Boolean).join(": ")) : "",
    stack ? h("pre", { tabindex: "0", role: "region", "aria-label": "Stack trace" }, String(stack)) : "",
    table({ ...rest, logger: log.logger, service: log.service }),
  );
}

function table(values) {
  const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  return h("table", { class: "attributes" }, h("tbody", {}, Object.keys(values).sort().map((name) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, shown(values[name]))))));
}

/** The page of log records: of those without a span that is here, or of all. */
export function showLogs(view) {
  document.title = "Logs · queuehop";
  const asked = new URLSearchParams(location.search);
  let closed = false;
  let timer = null;
  let version = 0;
  let following = null;
  const text = h("input", { type: "search", "data-search": true, placeholder: "Part of a text", "aria-label": "Text", value: asked.get("q") ?? "", autocomplete: "off", spellcheck: "false", oninput: () => soon() });
  const level = h("select", { onchange: () => change() }, LEVELS.map(([value, name]) => h("option", { value, selected: value === (asked.get("severity") ?? "") }, name)));
  const which = h("select", { onchange: () => change() }, h("option", { value: "" }, "Without a span"), h("option", { value: "1", selected: asked.get("all") === "1" }, "All"));
  const list = h("ol", { class: "log-list" });
  const older = h("button", { type: "button", class: "more", hidden: true, onclick: () => read(following) }, "Show older");
  const state = h("div", { role: "status" }, loading());
  view.append(
    h("h1", { class: "hidden" }, "Logs"),
    h("form", { class: "filters", role: "search", "aria-label": "Logs", onsubmit: (event) => (event.preventDefault(), change()) }, h("div", { class: "search" }, text), h("div", { class: "facets" }, h("label", {}, "Level", level), h("label", {}, "Log records", which), h("button", { type: "button", class: "clear", onclick: clear }, "Clear"))),
    state,
    list,
    older,
  );

  function clear() {
    text.value = "";
    level.selectedIndex = which.selectedIndex = 0;
    change();
  }

  const query = () => new URLSearchParams(Object.entries({ q: text.value.trim(), severity: level.value, all: which.value }).filter(([, value]) => value));

  function soon() {
    clearTimeout(timer);
    timer = setTimeout(change, PAUSE);
  }

  function change() {
    clearTimeout(timer);
    history.replaceState(history.state, "", `/logs${query().size ? `?${query()}` : ""}`);
    read();
  }

  async function read(before = null) {
    const mine = ++version;
    const wanted = query();
    if (before) wanted.set("before", before);
    let answer;
    try {
      answer = await get(`/api/logs?${wanted}`);
    } catch (error) {
      // What was read before stays, marked as old by the frame.
      if (!closed && mine === version && !(error.unreachable && list.childElementCount)) state.replaceChildren(h("p", { class: "empty" }, error.message));
      return;
    }
    if (closed || mine !== version) return;
    following = answer.next;
    older.hidden = following === null;
    const items = answer.logs.map(item);
    if (before) list.append(...items);
    else list.replaceChildren(...items);
    const none = query().size > (which.value ? 1 : 0) ? nothing("No log records match", "Remove a filter.") : which.value ? nothing("No log records yet", "Send logs over OTLP to the addresses that take spans.") : nothing("No log records without a span", "Those of spans are in their traces. Choose “All” to see them here.");
    state.replaceChildren(...(list.childElementCount ? [] : [none]));
  }

  // New ones go on top; those that are there stay, with what is open in them.
  async function more() {
    const mine = version;
    const answer = await get(`/api/logs?${query()}`).catch(() => null);
    if (!answer || closed || mine !== version) return;
    const known = new Set([...list.children].map((element) => element.dataset.key));
    const fresh = answer.logs.filter((log) => !known.has(String(log.id)));
    if (!fresh.length) return;
    if (!known.size || fresh.length === answer.logs.length) return read();
    list.prepend(...fresh.map(item));
  }

  function item(log) {
    const trace = log.is_known ? h("a", { href: `/trace/${log.trace_id}${log.span_id ? `/${log.span_id}` : ""}`, "data-link": "" }, "Trace") : log.trace_id ? h("span", { class: "at" }, `trace ${log.trace_id.slice(0, 8)} is not here`) : "";
    return h("li", { "data-key": log.id }, line(log, timeOf(log.time_ns)), h("span", { class: "where" }, [log.service, log.logger].filter(Boolean).join(" · "), trace ? " · " : "", trace));
  }

  read();
  const stop = everySeconds(5, more);
  return {
    refresh: more,
    keys: { r: () => read() },
    close() {
      closed = true;
      stop();
      clearTimeout(timer);
    },
  };
}
