// The list of traces: searched and filtered, and updated as traces arrive.

import { get } from "./api.js";
import { entitle, h, loading, nothing, toast } from "./dom.js";
import { count, counted } from "./format.js";
import { examples, filters } from "./filters.js";
import { COLUMNS, traceRow } from "./trace_row.js";

const PAGE = 50;
const LONGEST = 200;
// Milliseconds from an event, or from an error of the server, to the next reading of the list.
const [PAUSE, RETRY] = [700, 2000];
// Limits in milliseconds of the time until a row with a waiting message is read again.
const [SOONEST, LATEST] = [500, 10_000];
// Pixels from the top of the page within which nobody has scrolled yet.
const TOP = 40;

// The list as somebody left it, for the way back: its address, its rows, and the trace that was opened.
let left = null;

/** Go back to the list as it was left: its filters, its rows, and the focus. */
export function backToList(go) {
  const back = left;
  go(back?.address ?? "/");
  left = back;
}

/** Show the list in `view`. */
export function showTraces(view) {
  entitle("Traces");
  return new TraceList(view).page();
}

class TraceList {
  rows = new Map();
  next = null;
  request = null;
  isClosed = false;
  isBusy = false;
  // Whether the last request failed.
  isOld = false;
  // Whether the rows are those of the filters.
  isCurrent = false;
  timer = null;
  changes = null;

  constructor(view) {
    const address = location.pathname + location.search;
    const state = history.state?.shown ? history.state : null;
    const back = left?.address === address && (!state || state.trace === left.trace) ? left : state;
    left = null;
    this.filters = filters(new URLSearchParams(location.search), (done) => this.filter(done));
    this.body = h("tbody", { role: "rowgroup" });
    this.announcement = h("p", { class: "hidden", role: "status" });
    this.state = h("div", {}, loading());
    this.fresh = h("button", { type: "button", class: "fresh", hidden: true, onclick: () => this.showFresh() });
    this.more = h("button", { type: "button", class: "more", hidden: true, onclick: () => this.readFurther() }, "Show more");
    this.table = h(
      "table",
      { class: "traces", role: "table", "aria-label": "Traces", hidden: true, onclick: (event) => this.click(event), onauxclick: (event) => this.click(event) },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, COLUMNS.map(([text, kind]) => h("th", { role: "columnheader", scope: "col", class: kind }, text)))),
      this.body,
    );
    view.append(h("h1", { class: "hidden" }, "Traces"), this.filters.element, this.announcement, this.state, h("div", { class: "fresh-bar" }, this.fresh), this.table, this.more);
    this.readFirst(back);
  }

  page() {
    const arrow = (step) => (event) => !event.target.closest?.("select, button, [role=dialog]") && this.move(step);
    return {
      heard: (kind, trace) => kind === "trace" && this.hear(trace),
      refresh: () => this.readAgain(),
      keys: { j: () => this.move(1), k: () => this.move(-1), ArrowDown: arrow(1), ArrowUp: arrow(-1), r: () => this.readAgain() },
      close: () => this.close(),
    };
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.timer);
    clearTimeout(this.changes);
    this.request?.abort();
    this.filters.close();
  }

  // Reading

  filter(done) {
    this.isCurrent = false;
    const text = this.filters.parameters().toString();
    history[done ? "pushState" : "replaceState"]({}, "", text ? `/?${text}` : "/");
    this.readAll();
  }

  async readFirst(back) {
    if (back?.list) {
      // Newer traces would move the row to another place, or out of the list.
      this.take(back.list);
      this.readLater(0);
    } else await this.readAll({ limit: Math.min(LONGEST, Math.max(PAGE, back?.shown ?? 0)), isQuiet: true });
    // Do not take the focus from somebody who types.
    if (!back?.trace || document.activeElement?.matches("input, select, textarea")) return;
    this.rows.get(back.trace)?.element.querySelector("a").focus({ preventScroll: Boolean(history.state?.shown) });
  }

  /** Read the list from its beginning. */
  async readAll({ limit = PAGE, isQuiet = false } = {}) {
    const answer = await this.ask({ limit });
    if (answer) this.take(answer, isQuiet);
  }

  take(answer, isQuiet = true) {
    this.isCurrent = true;
    this.replace(answer.traces);
    this.fresh.hidden = true;
    this.finish(answer, isQuiet);
  }

  /** Read the next page of the list. */
  async readFurther() {
    const answer = await this.ask({ limit: PAGE, before: this.next });
    if (!answer) return;
    for (const trace of answer.traces) this.put(trace);
    this.finish(answer);
  }

  /** Read again what is shown. */
  async readAgain() {
    if (!this.isCurrent) return this.readAll({ isQuiet: true });
    const answer = await this.ask({ limit: Math.min(LONGEST, this.rows.size + PAGE) });
    if (!answer) return;
    this.takeAgain(answer);
    this.showState();
  }

  /** Show the new state of a trace: far down, its row is not read again. */
  hear(trace) {
    this.rows.get(trace.trace_id)?.update(trace);
    this.readLater();
  }

  readLater(pause = PAUSE) {
    this.timer ??= setTimeout(() => {
      this.timer = null;
      if (this.isClosed || document.visibilityState !== "visible") return;
      if (this.isBusy) this.readLater();
      else this.readAgain();
    }, pause);
  }

  /** Return the answer of the server; null if there is none, or it is no longer wanted. */
  async ask(more) {
    this.request?.abort();
    this.request = new AbortController();
    this.isBusy = true;
    const parameters = this.filters.parameters();
    for (const [name, value] of Object.entries(more)) if (value) parameters.set(name, value);
    try {
      const answer = await get(`/api/traces?${parameters}`, this.request.signal);
      if (this.isClosed) return null;
      this.isBusy = this.isOld = false;
      this.filters.complain("");
      return answer;
    } catch (error) {
      if (error.name !== "AbortError" && !this.isClosed) this.fail(error);
      return null;
    }
  }

  fail(error) {
    this.isBusy = false;
    if (!this.isCurrent) {
      // The rows on the page do not match the search that is now in the field.
      this.replace([]);
      this.more.hidden = this.fresh.hidden = true;
    }
    if (error.status === 400) {
      this.filters.complain(error.message, error.position);
      this.state.replaceChildren(examples());
      return;
    }
    if (!this.rows.size) this.state.replaceChildren(h("p", { class: "empty" }, error.message));
    else if (!this.isOld && !error.unreachable) toast(error.message);
    this.isOld = true;
    // When an unreachable viewer is back, the stream tells it.
    if (!error.unreachable) this.readLater(RETRY);
  }

  // Showing

  finish({ next }, isQuiet = false) {
    this.next = next;
    if (!isQuiet) this.announcement.textContent = !this.rows.size ? "No traces match" : next ? `${count(this.rows.size)} or more traces` : counted(this.rows.size, "trace");
    this.showState();
  }

  showState() {
    this.more.hidden = !this.next;
    this.table.hidden = !this.rows.size;
    this.state.replaceChildren(...(this.rows.size ? [] : [empty(this.filters.isFiltered())]));
    this.watch();
  }

  replace(traces) {
    const wanted = new Set(traces.map((trace) => trace.trace_id));
    for (const id of [...this.rows.keys()]) if (!wanted.has(id)) this.drop(id);
    traces.forEach((trace, at) => {
      const { element } = this.put(trace);
      if (this.body.rows[at] !== element) this.body.insertBefore(element, this.body.rows[at] ?? null);
    });
    this.table.hidden = !this.rows.size;
  }

  takeAgain({ traces, next }) {
    const found = new Map(traces.map((trace) => [trace.trace_id, trace]));
    const shown = traces.filter((trace) => this.rows.has(trace.trace_id));
    // What follows the last row is on the next page, and has not just arrived.
    const last = [...this.body.rows].findLast((element) => found.has(element.dataset.trace))?.dataset.trace;
    const end = this.next && last ? traces.indexOf(found.get(last)) : Infinity;
    const arrived = traces.slice(0, end).filter((trace) => !this.rows.has(trace.trace_id));
    // A row that is not in the answer no longer matches, or newer rows have moved it to the next page.
    const sure = next ? shown.length : Infinity;
    [...this.body.rows].forEach((element, at) => {
      const id = element.dataset.trace;
      if (found.has(id)) this.rows.get(id).update(found.get(id));
      else if (at < sure) this.drop(id);
    });
    const isInOrder = shown.every((trace, at) => this.body.rows[at].dataset.trace === trace.trace_id);
    if (!arrived.length) this.fresh.hidden = true;
    if (!arrived.length && isInOrder) return;
    if (!this.rows.size || !this.isInUse()) this.insert(traces, next);
    else if (arrived.length) this.offer(arrived.length, next);
  }

  insert(traces, next) {
    const length = Math.max(PAGE, this.rows.size);
    this.replace(traces.slice(0, length));
    if (traces.length > length) this.readAll({ isQuiet: true, limit: Math.min(length, LONGEST) });
    else this.next = next;
    this.fresh.hidden = true;
  }

  /** Offer the rows that have arrived, as a button. */
  offer(arrived, next) {
    const text = `Show ${arrived > PAGE && next ? `${count(PAGE)}+` : count(arrived)} more ${arrived === 1 ? "trace" : "traces"}`;
    if (this.fresh.textContent !== text) this.fresh.textContent = text;
    this.fresh.hidden = false;
  }

  showFresh() {
    window.scrollTo(0, 0);
    this.readAll({ isQuiet: true });
  }

  /** Whether somebody reads the list, so that its rows must not move. */
  isInUse() {
    const selection = getSelection();
    return window.scrollY >= TOP || this.body.contains(document.activeElement) || this.body.matches(":hover") || (!selection.isCollapsed && this.body.contains(selection.anchorNode));
  }

  put(trace) {
    let row = this.rows.get(trace.trace_id);
    if (row) row.update(trace);
    else {
      row = traceRow(trace);
      this.rows.set(trace.trace_id, row);
      this.body.append(row.element);
    }
    return row;
  }

  drop(id) {
    const { element } = this.rows.get(id);
    const hasFocus = element.contains(document.activeElement);
    const beside = element.nextElementSibling ?? element.previousElementSibling;
    this.rows.delete(id);
    element.remove();
    if (hasFocus) beside?.querySelector("a")?.focus({ preventScroll: true });
  }

  /** Read the list again when a message in it changes its state, and at least every ten seconds while one waits. */
  watch() {
    clearTimeout(this.changes);
    const soonest = Math.min(...[...this.rows.values()].map((row) => row.changes()));
    if (soonest < Infinity) this.changes = setTimeout(() => this.readLater(0), Math.min(LATEST, Math.max(SOONEST, soonest)));
  }

  // Keys and clicks

  /** Move the focus by `step` rows. */
  move(step) {
    const all = [...this.body.rows];
    if (!all.length) return;
    const at = all.findIndex((row) => row.contains(document.activeElement));
    const to = at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.max(0, Math.min(all.length - 1, at + step));
    all[to].querySelector("a").focus();
  }

  /** Open the trace of a row that was clicked anywhere, as its link does. */
  click(event) {
    const element = event.target.closest("tbody tr");
    if (!element || event.button > 1) return;
    const link = element.querySelector("a");
    const isElsewhere = event.button === 1 || event.metaKey || event.ctrlKey || event.shiftKey;
    if (!isElsewhere) this.leave(element);
    if (event.target.closest("a") || !getSelection().isCollapsed) return;
    if (isElsewhere) window.open(link.href, "_blank", "noopener");
    else link.click();
  }

  leave(element) {
    const traces = [...this.body.rows].map((row) => this.rows.get(row.dataset.trace).current());
    left = { address: location.pathname + location.search, shown: this.rows.size, trace: element.dataset.trace, list: { traces, next: this.next } };
    history.replaceState({ shown: left.shown, trace: left.trace }, "");
  }
}

function empty(isFiltered) {
  if (isFiltered) return h("div", {}, nothing("No traces match", "Remove a filter, or wait for new traces. They appear here when they arrive."), examples());
  return nothing(
    "No traces yet",
    "To send traces, set these variables in your processes. Traces appear here when they arrive.",
    h("pre", { tabindex: "0", role: "region", "aria-label": "Environment variables" }, `OTEL_EXPORTER_OTLP_ENDPOINT=${location.origin}\nOTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`),
    "For OTLP over gRPC, use the address of ",
    h("code", {}, "--grpc"),
    " (port 4317 by default). To look at traces from a file, open it or drop it here.",
  );
}
