// The page of log records: those without a span, or all.

import { get } from "./api.js";
import { entitle, h, loading, nothing } from "./dom.js";
import { timeOf } from "./format.js";
import { logLine } from "./log_lines.js";
import { everySeconds } from "./polling.js";

const LEVELS = [["", "Any"], ["5", "DEBUG"], ["9", "INFO"], ["13", "WARN"], ["17", "ERROR"], ["21", "FATAL"]];
const PAUSE = 250;

/** Show the log records in `view`. */
export function showLogs(view) {
  entitle("Logs");
  return new LogList(view).page();
}

class LogList {
  isClosed = false;
  timer = null;
  version = 0;
  next = null;

  constructor(view) {
    const given = new URLSearchParams(location.search);
    this.text = h("input", { type: "search", "data-search": true, placeholder: "Search log text", "aria-label": "Text", value: given.get("q") ?? "", autocomplete: "off", spellcheck: "false", oninput: () => this.changeLater() });
    this.level = h("select", { onchange: () => this.change() }, LEVELS.map(([value, name]) => h("option", { value, selected: value === (given.get("severity") ?? "") }, name)));
    this.which = h("select", { onchange: () => this.change() }, h("option", { value: "" }, "Without a span"), h("option", { value: "1", selected: given.get("all") === "1" }, "All"));
    this.list = h("ol", { class: "log-list" });
    this.older = h("button", { type: "button", class: "more", hidden: true, onclick: () => this.read(this.next) }, "Show older");
    this.state = h("div", { role: "status" }, loading());
    view.append(h("h1", { class: "hidden" }, "Logs"), this.form(), this.state, this.list, this.older);
    this.read();
    this.stop = everySeconds(5, () => this.readNewer());
  }

  page() {
    return { refresh: () => this.readNewer(), keys: { r: () => this.read() }, close: () => this.close() };
  }

  close() {
    this.isClosed = true;
    this.stop();
    clearTimeout(this.timer);
  }

  form() {
    const submit = (event) => {
      event.preventDefault();
      this.change();
    };
    const facets = [h("label", {}, "Level", this.level), h("label", {}, "Log records", this.which), h("button", { type: "button", class: "clear", onclick: () => this.clear() }, "Clear")];
    return h("form", { class: "filters", role: "search", "aria-label": "Logs", onsubmit: submit }, h("div", { class: "search" }, this.text), h("div", { class: "facets" }, facets));
  }

  clear() {
    this.text.value = "";
    this.level.selectedIndex = this.which.selectedIndex = 0;
    this.change();
  }

  changeLater() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.change(), PAUSE);
  }

  change() {
    clearTimeout(this.timer);
    const query = this.query();
    history.replaceState(history.state, "", `/logs${query.size ? `?${query}` : ""}`);
    this.read();
  }

  query() {
    const values = { q: this.text.value.trim(), severity: this.level.value, all: this.which.value };
    return new URLSearchParams(Object.entries(values).filter(([, value]) => value));
  }

  /** Read the newest log records, or those before `before`. */
  async read(before = null) {
    const version = ++this.version;
    const query = this.query();
    if (before) query.set("before", before);
    let answer;
    try {
      answer = await get(`/api/logs?${query}`);
    } catch (error) {
      // The data on the page stays. While the viewer is down, the frame shows that.
      if (this.isWanted(version) && !(error.unreachable && this.list.childElementCount)) this.state.replaceChildren(h("p", { class: "empty" }, error.message));
      return;
    }
    if (!this.isWanted(version)) return;
    this.next = answer.next;
    this.older.hidden = this.next === null;
    if (!before) this.list.replaceChildren();
    this.add(answer.logs);
    this.state.replaceChildren(...(this.list.childElementCount ? [] : [this.empty()]));
  }

  /** Add log records where their times belong. Pages are in the order of arrival, so the next may have later times. */
  add(logs) {
    const isBefore = (log) => (element) => BigInt(element.dataset.time) < BigInt(log.time_ns);
    for (const log of logs) this.list.insertBefore(item(log), [...this.list.children].find(isBefore(log)) ?? null);
  }

  /** Add newer log records. Those on the page stay, with what is open in them. */
  async readNewer() {
    const version = this.version;
    const answer = await get(`/api/logs?${this.query()}`).catch(() => null);
    if (!answer || !this.isWanted(version)) return;
    const known = new Set([...this.list.children].map((element) => element.dataset.key));
    const fresh = answer.logs.filter((log) => !known.has(String(log.id)));
    if (!fresh.length) return;
    if (!known.size || fresh.length === answer.logs.length) this.read();
    else this.add(fresh);
  }

  isWanted(version) {
    return !this.isClosed && version === this.version;
  }

  empty() {
    const isFiltered = this.text.value.trim() || this.level.value;
    if (isFiltered) return nothing("No log records match", "Remove a filter.");
    if (this.which.value) return nothing("No log records yet", "Send log records over OTLP to the same address as spans.");
    return nothing("No log records without a span", "The log records of a span are in its trace. Choose “All” to list them here.");
  }
}

function item(log) {
  const source = [log.service, log.logger].filter(Boolean).join(" · ");
  return h("li", { "data-key": log.id, "data-time": log.time_ns }, logLine(log, timeOf(log.time_ns)), h("span", { class: "where" }, source, source && log.trace_id ? " · " : "", traceOf(log)));
}

function traceOf(log) {
  if (log.is_known) return h("a", { href: `/trace/${log.trace_id}${log.span_id ? `/${log.span_id}` : ""}`, "data-link": "" }, "Trace");
  return log.trace_id ? h("span", { class: "at" }, `trace ${log.trace_id} is not stored here`) : "";
}
