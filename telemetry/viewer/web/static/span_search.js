// The search in the spans of one trace: names here, attributes on the server.

import { h } from "./dom.js";

// Milliseconds without a key until the server is asked.
const PAUSE = 150;

/**
 * The field, its matches, and the way from one to the next. `search(text)` finds the ids of spans by
 * their attributes, `rows()` are all rows in order, `selected()` is the id of the selected one,
 * `goTo(id)` selects another, and `leave()` focuses the rows. `changed(byHand)` is called when the
 * matches may have changed.
 */
export class SpanSearch {
  matches = new Set();
  wanted = "";
  asked = "";
  inAttributes = new Set();
  timer = null;

  constructor({ text, search, rows, selected, goTo, leave, changed }) {
    Object.assign(this, { search, rows, selected, goTo, leave, changed });
    const button = (label, key, sign, by) => h("button", { type: "button", "aria-label": label, title: `${label} (${key})`, onclick: () => this.step(by) }, sign);
    this.field = h("input", { type: "search", "data-search": true, "aria-label": "Search spans", placeholder: "Search names and attributes", autocomplete: "off", spellcheck: "false", value: text, oninput: () => this.look(true), onkeydown: (event) => this.press(event) });
    this.tally = h("span", { class: "tally", role: "status" });
    this.buttons = [button("Previous match", "N", "↑", -1), button("Next match", "n", "↓", 1)];
    this.element = h("div", { class: "find" }, this.field, this.buttons, this.tally);
  }

  get text() {
    return this.field.value;
  }

  close() {
    clearTimeout(this.timer);
  }

  press(event) {
    if (event.key === "Enter") this.step(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape") this.leave();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Search again in rows that have changed; in attributes only if there are other spans. */
  update(hasOtherSpans) {
    if (hasOtherSpans) this.asked = "";
    this.look(false);
  }

  look(byHand) {
    this.wanted = this.text.trim().toLowerCase();
    if (this.wanted !== this.asked) {
      clearTimeout(this.timer);
      this.inAttributes = new Set();
      if (this.wanted) this.timer = setTimeout(() => this.ask(this.wanted, byHand), PAUSE);
      this.asked = this.wanted;
    }
    this.mark(byHand);
  }

  async ask(text, byHand) {
    const ids = await this.search(text);
    if (text !== this.wanted) return;
    this.inAttributes = new Set(ids);
    this.mark(byHand);
  }

  mark(byHand) {
    this.matches = new Set(this.wanted ? this.rows().filter((row) => this.holds(row)).map((row) => row.id) : []);
    if (byHand && this.matches.size && !this.matches.has(this.selected())) this.step(1);
    else this.count();
    this.changed(byHand);
  }

  holds(row) {
    const words = [row.name, row.service, row.state, row.message, row.span_kind, row.id, row.wait?.queue, row.wait?.state];
    return this.inAttributes.has(row.id) || words.some((word) => word && String(word).toLowerCase().includes(this.wanted));
  }

  /** Show which of the matches is selected. */
  count() {
    const at = [...this.matches].indexOf(this.selected());
    this.tally.textContent = !this.wanted ? "" : this.matches.size ? `${at < 0 ? "–" : at + 1} of ${this.matches.size}` : "No spans match";
    for (const button of this.buttons) button.disabled = !this.matches.size;
  }

  /** Go to the next match (1) or to the one before (-1), around the end. */
  step(by) {
    const rows = this.rows();
    const here = rows.findIndex((row) => row.id === this.selected());
    const isMatch = (row) => this.matches.has(row.id);
    const found = by > 0 ? (rows.slice(here + 1).find(isMatch) ?? rows.find(isMatch)) : (rows.slice(0, Math.max(0, here)).findLast(isMatch) ?? rows.findLast(isMatch));
    if (found) this.goTo(found.id);
    this.count();
  }
}
