// The rows of a trace against time. Only the rows in view have elements.

import { arrowsOf } from "./arrows.js";
import { h, s } from "./dom.js";
import { tick, ticks } from "./format.js";
import { minimap } from "./minimap.js";
import { SpanSearch } from "./span_search.js";
import { panned, scaled, wholeOf, within } from "./time_window.js";
import { formOf, idOf, waterfallRow } from "./waterfall_row.js";

// On a phone the bar is below the name.
const NARROW = matchMedia("(max-width: 34rem)");
const rowHeight = () => (NARROW.matches ? 52 : 30);
// The middle of a bar, in pixels from the top of its row.
const barMiddle = () => (NARROW.matches ? 38 : 15);
// Rows above and below the window that have elements too.
const BEYOND = 10;
// The width of a label of the axis in pixels, and the most of them.
const [LABEL, MOST_LABELS] = [60, 5];

/**
 * Draw `trace`. `open(id)` is called for a row that is opened, `moved(id)` for one that is selected,
 * and `changed()` when `state()` has changed. `saved` is an earlier `state()`, and `chosen` the id of
 * the span to select first. `search(text)` returns the ids of the spans that have it in an attribute.
 */
export function waterfall(trace, callbacks) {
  return new Waterfall(trace, callbacks);
}

class Waterfall {
  rows = [];
  shown = [];
  selected = 0;
  elements = new Map();
  // Whether the row that the address names was found and selected.
  isFound = false;
  lastDrawn = "";
  axisWidth = 0;

  constructor(trace, { chosen, open, moved, saved, changed, search }) {
    Object.assign(this, { trace, chosen, open, moved, saved, changed });
    this.range = saved?.zoom ?? null;
    this.folded = new Set(saved?.closed ?? []);
    // A saved state knows which folds of attempts somebody opened.
    this.known = new Set(saved ? trace.rows.map((row) => row.id) : []);
    this.search = new SpanSearch({
      text: saved?.wanted ?? "",
      search,
      rows: () => this.rows,
      selected: () => this.current?.id,
      goTo: (id) => this.goTo(id),
      leave: () => this.scroller.focus({ preventScroll: true }),
      changed: (byHand) => {
        this.draw();
        if (byHand) changed();
      },
    });
    this.build();
    this.take(trace);
    this.resizing = new ResizeObserver(() => this.draw());
    this.resizing.observe(this.scroller);
    NARROW.addEventListener("change", this.relayout);
  }

  build() {
    this.axis = h("div", { class: "axis", "aria-hidden": "true" });
    this.canvas = h("div", { class: "canvas", role: "presentation" });
    this.arrows = s("svg", { class: "arrows", "aria-hidden": "true" });
    this.scroller = h("div", {
      class: "rows", role: "treegrid", tabindex: "0", "aria-label": "Spans and waits of the trace", "aria-readonly": "true", "aria-colcount": "2",
      onscroll: () => this.scroll(), onkeydown: (event) => this.press(event), onclick: (event) => this.click(event),
    }, this.arrows, this.canvas);
    this.reset = h("button", { type: "button", title: "Reset zoom (0)", onclick: () => this.zoomReset() }, "Reset zoom");
    this.overview = minimap((from, to) => this.show(from === null ? null : [from, to]));
    const button = (label, key, sign, act) => h("button", { type: "button", "aria-label": label, title: `${label} (${key})`, onclick: act }, sign);
    const zoom = h("div", { class: "zoom", role: "group", "aria-label": "Zoom" }, button("Zoom out", "-", "−", () => this.zoomOut()), button("Zoom in", "+", "+", () => this.zoomIn()), this.reset);
    const columns = h("div", { class: "columns", "aria-hidden": "true" }, h("span", {}, "Span"), this.axis);
    this.element = h("section", { class: "waterfall", "aria-label": "Timeline" }, h("div", { class: "tools" }, this.search.element, zoom), this.overview.element, columns, this.scroller);
  }

  close() {
    this.search.close();
    this.resizing.disconnect();
    NARROW.removeEventListener("change", this.relayout);
  }

  state() {
    return { closed: [...this.folded], zoom: this.range, wanted: this.search.text, top: this.scroller.scrollTop };
  }

  get current() {
    return this.shown[this.selected];
  }

  // Data and layout

  update(trace) {
    this.take(trace);
    this.draw();
  }

  take(trace) {
    const selected = this.current?.id;
    const hasOtherSpans = trace.spans !== this.trace.spans;
    this.trace = trace;
    this.rows = trace.rows;
    this.places = new Map(this.rows.map((row, at) => [row.id, at]));
    for (const row of this.rows) {
      if (row.kind === "attempts" && !this.known.has(row.id)) this.folded.add(row.id);
      this.known.add(row.id);
    }
    this.layout();
    const isWanted = this.chosen && !this.isFound;
    if (isWanted) this.reveal(this.chosen);
    const at = this.indexOf(isWanted ? this.chosen : selected);
    if (at >= 0) this.selected = at;
    this.isFound ||= !this.chosen || at >= 0;
    this.search.update(hasOtherSpans);
  }

  /** Compute the rows that are not in a folded one. */
  layout() {
    this.shown = [];
    let hidden = Infinity;
    for (const row of this.rows) {
      if (row.depth > hidden) continue;
      hidden = this.folded.has(row.id) ? row.depth : Infinity;
      this.shown.push(row);
    }
    this.selected = Math.max(0, Math.min(this.selected, this.shown.length - 1));
    this.canvas.style.setProperty("height", `${this.shown.length * rowHeight()}px`);
    this.scroller.setAttribute("aria-rowcount", this.shown.length);
  }

  relayout = () => {
    this.layout();
    this.draw();
  };

  indexOf(id) {
    return this.shown.findIndex((row) => row.id === id);
  }

  /** Open the rows that a row is in. */
  reveal(id) {
    let isChanged = false;
    for (let row = this.rows[this.places.get(id)]; row && row.parent !== null; ) {
      row = this.rows[this.places.get(row.parent)];
      if (row) isChanged = this.folded.delete(row.id) || isChanged;
    }
    if (isChanged) this.layout();
  }

  // Drawing

  scroll() {
    const window = this.window();
    if (`${window}` !== this.lastDrawn) this.draw(window);
    this.changed();
  }

  /** The first row that has an element, and the first after them that has none. */
  window() {
    const { scrollTop, clientHeight } = this.scroller;
    return [Math.max(0, Math.floor(scrollTop / rowHeight()) - BEYOND), Math.min(this.shown.length, Math.ceil((scrollTop + clientHeight) / rowHeight()) + BEYOND)];
  }

  draw([from, to] = this.window()) {
    this.lastDrawn = `${[from, to]}`;
    // Read before anything changes, so that it costs no layout.
    this.axisWidth = this.axis.clientWidth;
    const whole = wholeOf(this.trace);
    const [begin, end] = this.range ?? whole;
    const percent = (ms) => (100 * (ms - begin)) / (end - begin);
    this.drawRows(from, to, percent);
    this.axis.replaceChildren(...labels(begin, end, Math.floor(this.axisWidth / LABEL)).map(([ms, text]) => h("span", { style: { left: `${percent(ms)}%` } }, text)));
    this.scroller.setAttribute("aria-activedescendant", this.current ? idOf(this.current) : "");
    arrowsOf(this.arrows, { canvas: this.canvas, shown: this.shown, links: this.trace.links, from, to, percent, height: rowHeight(), middle: barMiddle() });
    this.overview.draw(this.rows, whole, this.range);
    this.reset.disabled = !this.range;
  }

  drawRows(from, to, percent) {
    const needed = Array.from({ length: to - from }, (_, at) => from + at);
    if (this.current && (this.selected < from || this.selected >= to)) needed.push(this.selected);
    const kept = new Set(needed.map((at) => this.shown[at].id));
    for (const at of needed) {
      const row = this.shown[at];
      this.elementOf(row).place(row, { at, top: at * rowHeight(), isSelected: at === this.selected, isMatch: this.search.matches.has(row.id), isFolded: this.folded.has(row.id), percent, axisWidth: this.axisWidth });
    }
    for (const [id, { element }] of this.elements) {
      if (kept.has(id)) continue;
      element.remove();
      this.elements.delete(id);
    }
  }

  /** The element of a row, which is made again only if the row needs other elements. */
  elementOf(row) {
    const form = formOf(row);
    const known = this.elements.get(row.id);
    if (known?.form === form) return known;
    known?.element.remove();
    const made = { form, ...waterfallRow(row) };
    this.elements.set(row.id, made);
    this.canvas.append(made.element);
    return made;
  }

  // Zoom

  show(range) {
    this.range = within(wholeOf(this.trace), range);
    this.draw();
    this.changed();
  }

  zoomIn() {
    const row = this.current;
    this.zoom(0.5, row && (row.start_ms + row.end_ms) / 2);
  }

  zoomOut() {
    this.zoom(2);
  }

  zoomReset() {
    this.show(null);
  }

  zoom(by, middle) {
    const whole = wholeOf(this.trace);
    this.show(scaled(whole, this.range ?? whole, by, middle));
  }

  pan(share) {
    if (this.range) this.show(panned(wholeOf(this.trace), this.range, share));
  }

  // Selection

  focus() {
    this.scroller.focus({ preventScroll: true });
    if (this.saved?.top) this.scroller.scrollTop = this.saved.top;
    else this.select(this.selected, false); // The page stays at its top.
    this.saved = null;
  }

  select(to, inWindow = true) {
    const before = this.current?.id;
    this.selected = Math.max(0, Math.min(this.shown.length - 1, to));
    const top = this.selected * rowHeight();
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top + rowHeight() > this.scroller.scrollTop + this.scroller.clientHeight) this.scroller.scrollTop = top + rowHeight() - this.scroller.clientHeight;
    this.draw();
    // The rows themselves may reach below the window.
    if (inWindow) this.elements.get(this.current?.id)?.element.scrollIntoView({ block: "nearest" });
    this.search.count();
    if (this.current && this.current.id !== before) this.moved(this.current.open);
  }

  /** Select a row, and open the rows that it is in. */
  goTo(id) {
    this.reveal(id);
    const at = this.indexOf(id);
    if (at >= 0) this.select(at);
  }

  next() {
    this.search.step(1);
  }

  previous() {
    this.search.step(-1);
  }

  fold(row, isFolded) {
    if (!row.has_children) return;
    this.folded[isFolded ? "add" : "delete"](row.id);
    this.relayout();
    this.changed();
  }

  /** Open all rows; if all are open, fold all below the first level. */
  toggleAll() {
    const closes = !this.folded.size;
    this.folded.clear();
    if (closes) for (const row of this.rows) if (row.has_children && row.depth > 0) this.folded.add(row.id);
    this.relayout();
    this.changed();
  }

  /** Call `use` with the traceparent of the selected row. */
  traceparent(use, traceId) {
    const span = this.rows[this.places.get(this.current?.open)];
    if (span) use(`00-${traceId}-${span.id}-${span.flags.toString(16).padStart(2, "0")}`);
  }

  // Keys and clicks

  press(event) {
    const row = this.current;
    if (event.ctrlKey || event.metaKey || event.altKey || !row) return;
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / rowHeight()) - 1);
    const act = {
      ArrowDown: () => this.select(this.selected + 1),
      ArrowUp: () => this.select(this.selected - 1),
      PageDown: () => this.select(this.selected + page),
      PageUp: () => this.select(this.selected - page),
      Home: () => this.select(0),
      End: () => this.select(this.shown.length - 1),
      ArrowRight: () => (event.shiftKey ? this.pan(0.25) : this.inward(row)),
      ArrowLeft: () => (event.shiftKey ? this.pan(-0.25) : this.outward(row)),
      Enter: () => this.open(row.open),
      " ": () => this.open(row.open),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  /** Open a row; if it is open, go to its first child. */
  inward(row) {
    if (this.folded.has(row.id)) this.fold(row, false);
    else if (row.has_children) this.select(this.selected + 1);
  }

  /** Fold a row; if it is folded or has no children, go to its parent. */
  outward(row) {
    if (row.has_children && !this.folded.has(row.id)) this.fold(row, true);
    else if (row.parent !== null) this.select(this.indexOf(row.parent));
  }

  click(event) {
    const element = event.target.closest(".row");
    if (!element || event.target.closest("a") || !getSelection().isCollapsed) return;
    this.selected = Number(element.dataset.at);
    const row = this.current;
    if (event.target.closest(".fold") && row.has_children) return this.fold(row, !this.folded.has(row.id));
    this.draw();
    this.search.count();
    this.open(row.open);
  }
}

/** The labels of the axis: at most so many, with their times. Where times differ by less than they show, all but the first are relative to it. */
function labels(begin, end, most) {
  const times = ticks(end, Math.max(1, Math.min(MOST_LABELS, most)), begin);
  const texts = times.map(tick);
  const isClear = new Set(texts).size === texts.length;
  return times.map((ms, at) => [ms, at && !isClear ? `+${tick(ms - times[0])}` : texts[at]]);
}
