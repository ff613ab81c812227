// The page of one trace: its head, the waterfall and the details of a span.

import { get, getRows } from "./api.js";
import { detail } from "./detail.js";
import { entitle, h, loading, notFound, toast } from "./dom.js";
import { severity } from "./log_lines.js";
import { traceHead } from "./trace_head.js";
import { backToList } from "./traces.js";
import { waterfall } from "./waterfall.js";

// Milliseconds from an event, a moved row, or a change of the waterfall to what follows it.
const [READ_PAUSE, TURN_PAUSE, SAVE_PAUSE] = [300, 120, 200];
// Milliseconds after an error of the server.
const RETRY = 2000;
// Milliseconds until a trace with a waiting message is read again, and the spans that cost one such time more.
const [AGAIN, MANY] = [1000, 500];
// On a narrow page the details are below the rows.
const NARROW = matchMedia("(max-width: 56rem)");
// Milliseconds after a state changes, so that it has changed.
const MARGIN = 50;

/** Show the trace in `view`, and the details of a span if the address names one. */
export function showTrace(view, [traceId, spanId], go) {
  entitle(`Trace ${traceId.slice(0, 8)}`);
  return new TracePage(view, traceId.toLowerCase(), spanId?.toLowerCase() ?? null).page(go);
}

class TracePage {
  waterfall = null;
  isClosed = false;
  // Whether the last request failed.
  isOld = false;
  version = 0;
  timers = {};
  missingParents = new Map();

  constructor(view, id, spanId) {
    this.id = id;
    this.spanId = spanId;
    this.saved = history.state?.trace === id ? history.state.waterfall : null;
    this.head = traceHead(id, { goTo: (span) => this.goTo(span), copyId: () => this.copyId(), copyJson: () => this.copyJson() });
    this.side = h("aside", { class: "detail", "aria-label": "Span details", hidden: true });
    this.body = h("div", { class: "trace-body" }, loading());
    view.append(this.head.element, this.body);
    this.read();
  }

  page(go) {
    return {
      heard: (kind, row) => kind === "trace" && row.trace_id === this.id && this.readLater(),
      refresh: () => this.read(),
      keys: this.keys(go),
      close: () => this.close(),
    };
  }

  keys(go) {
    return {
      c: () => this.copyId(),
      o: () => this.copyJson(),
      d: () => document.querySelector("a[download]")?.click(),
      p: () => this.waterfall?.traceparent((text) => copy(text, "traceparent"), this.id),
      n: () => this.waterfall?.next(),
      N: () => this.waterfall?.previous(),
      "+": () => this.waterfall?.zoomIn(),
      "=": () => this.waterfall?.zoomIn(),
      "-": () => this.waterfall?.zoomOut(),
      0: () => this.waterfall?.zoomReset(),
      "*": () => this.waterfall?.toggleAll(),
      u: () => backToList(go),
      Escape: () => !this.side.hidden && this.closeDetails(),
    };
  }

  close() {
    this.isClosed = true;
    for (const timer of Object.values(this.timers)) clearTimeout(timer);
    this.waterfall?.close();
  }

  after(name, pause, act) {
    clearTimeout(this.timers[name]);
    this.timers[name] = setTimeout(act, pause);
  }

  // Reading

  async read() {
    const version = ++this.version;
    try {
      // The first rows fill the screen, unless it shows others.
      const isEarly = !this.waterfall && !this.spanId && !this.saved;
      const [answers, { logs }] = await Promise.all([getRows(`/api/traces/${this.id}/hops`, isEarly), get(`/api/traces/${this.id}/logs`)]);
      for await (const trace of answers) {
        if (this.isClosed || version !== this.version) return;
        this.isOld = false;
        addLogs(trace, logs);
        this.show(trace);
      }
    } catch (error) {
      if (!this.isClosed && version === this.version) this.fail(error);
    }
  }

  readLater() {
    this.timers.read ??= setTimeout(() => {
      this.timers.read = null;
      if (!this.isClosed) this.read();
    }, READ_PAUSE);
  }

  fail(error) {
    if (!this.waterfall) {
      const title = error.status === 404 ? "Trace not found" : "Cannot show the trace";
      this.body.replaceChildren(notFound(title, error.message));
    } else if (!error.status && !error.unreachable) throw error;
    else if (error.status && !this.isOld) toast(error.message);
    this.isOld = true;
    if (error.status >= 500) this.after("watch", RETRY, () => this.read());
  }

  show(trace) {
    this.updateDetails(trace);
    if (trace.root) entitle(trace.root.name);
    this.head.show(trace);
    if (this.waterfall) this.waterfall.update(trace);
    else this.draw(trace);
    this.watch(trace);
  }

  draw(trace) {
    this.waterfall = waterfall(trace, {
      chosen: this.spanId,
      saved: this.saved,
      open: (span) => this.open(span),
      moved: (span) => this.follow(span),
      changed: () => this.save(),
      search: (text) => this.search(text),
    });
    this.body.replaceChildren(this.waterfall.element, this.side);
    if (this.spanId) this.choose(this.spanId, false);
    this.waterfall.focus();
  }

  /** Read the trace again while a message waits, and when its state changes: then all numbers are of one moment. */
  watch(trace) {
    clearTimeout(this.timers.watch);
    const isWaiting = Object.keys(trace.live).some((state) => state !== "expired");
    const pauses = [trace.changes_in_ms === null ? Infinity : trace.changes_in_ms + MARGIN, isWaiting ? AGAIN * Math.max(1, trace.spans / MANY) : Infinity];
    const soonest = Math.min(...pauses);
    if (soonest < Infinity) this.after("watch", soonest, () => this.read());
  }

  /** The ids of the spans that have the text in an attribute. The waterfall finds names without the server. */
  search(text) {
    return get(`/api/traces/${this.id}/matches?${new URLSearchParams({ q: text })}`).then((answer) => answer.span_ids, () => []);
  }

  /** Remember in the history what is folded and zoomed, for the way back. */
  save() {
    this.after("save", SAVE_PAUSE, () => history.replaceState({ ...history.state, trace: this.id, waterfall: this.waterfall.state() }, ""));
  }

  // The details of a span

  choose(span, navigate = true) {
    clearTimeout(this.timers.turn);
    if (navigate) history.replaceState(history.state, "", `/trace/${this.id}/${span}`);
    return detail(this.side, this.id, span, { missingParent: this.missingParents.get(span), close: () => this.closeDetails(), copy });
  }

  async open(span) {
    await this.choose(span);
    if (NARROW.matches) this.side.scrollIntoView({ block: "start" });
  }

  goTo(span) {
    this.waterfall?.goTo(span);
    this.open(span);
  }

  /** Let the open panel follow the selected row. */
  follow(span) {
    if (!this.side.hidden) this.after("turn", TURN_PAUSE, () => this.choose(span));
  }

  /** Show the panel again if it has failed, or the parent of its span has arrived or is now missing. */
  updateDetails(trace) {
    const before = this.missingParents;
    this.missingParents = new Map(trace.rows.map((row) => [row.id, row.missing_parent]));
    const shown = this.side.hidden ? undefined : this.side.dataset.span;
    if (shown && ("failed" in this.side.dataset || before.get(shown) !== this.missingParents.get(shown))) this.choose(shown, false);
  }

  closeDetails() {
    this.side.hidden = true;
    history.replaceState(history.state, "", `/trace/${this.id}`);
    this.waterfall?.focus();
  }

  // Copying

  copyId() {
    copy(this.id, "trace id");
  }

  async copyJson() {
    try {
      copy(JSON.stringify(await get(`/api/traces/${this.id}`), null, 2), "trace as OTLP JSON");
    } catch (error) {
      toast(error.message);
    }
  }
}

/** Add to each row its log records: time, severity and text. */
function addLogs(trace, logs) {
  const ofSpans = Map.groupBy(logs, (log) => log.span_id);
  const at = (log) => Number(BigInt(log.time_ns) - BigInt(trace.start_ns)) / 1e6;
  for (const row of trace.rows) {
    if (row.kind === "span") row.logs = (ofSpans.get(row.id) ?? []).map((log) => ({ ms: at(log), severity: severity(log), text: `${log.level} ${log.text}` }));
  }
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`Copied the ${what}`);
  } catch {
    toast(`The browser does not allow this page to copy. The ${what}: ${text.slice(0, 300)}`);
  }
}
