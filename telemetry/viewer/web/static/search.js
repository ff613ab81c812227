// The search field, with suggestions and an error message.

import { get } from "./api.js";
import { h } from "./dom.js";

// Milliseconds without a key until the search runs.
const PAUSE = 150;
// The most characters of the wrong part of a search that the error shows.
const PART = 20;
const HINT = "Task id, trace id, part of a name, key=value, wait>2s, status:stuck";

/** A search field with a `value`. `changed(text, done)` is called after a change; `done` is true after Enter. */
export class SearchField {
  timer = null;
  request = null;
  // The character from which a suggestion replaces the text, and the number of the selected one.
  from = 0;
  selected = -1;

  constructor(value, changed) {
    this.changed = changed;
    this.input = h("input", {
      type: "search", value, "data-search": true, role: "combobox", autocomplete: "off", autocapitalize: "off", spellcheck: "false", maxlength: 2000,
      placeholder: HINT, "aria-label": "Search traces", "aria-expanded": "false", "aria-controls": "suggestions", "aria-autocomplete": "list", "aria-describedby": "search-error",
      oninput: () => this.type(), onkeydown: (event) => this.press(event), onblur: () => this.hide(), onclick: () => this.suggest(),
    });
    this.list = h("ul", { id: "suggestions", class: "suggestions", role: "listbox", "aria-label": "Suggestions", hidden: true });
    this.problem = h("p", { id: "search-error", class: "field-error", role: "alert" });
    this.element = h("div", { class: "search" }, this.input, this.list, this.problem);
  }

  get value() {
    return this.input.value.trim();
  }

  clear() {
    this.input.value = "";
  }

  close() {
    clearTimeout(this.timer);
    this.request?.abort();
  }

  /** Show what is wrong, and where; an empty text clears it. */
  complain(text, position) {
    const part = this.input.value.slice(position, position + PART);
    const needsPart = text && position > 0 && part && !text.includes(`'${part.split(" ")[0]}'`);
    this.problem.textContent = needsPart ? `At '${part}': ${text}` : text;
    if (text) this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
  }

  type() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.changed(this.input.value, false);
      this.suggest();
    }, PAUSE);
  }

  async suggest() {
    this.request?.abort();
    this.request = new AbortController();
    let answer;
    try {
      const text = this.input.value.slice(0, this.input.selectionStart ?? undefined);
      answer = await get(`/api/suggest?${new URLSearchParams({ q: text })}`, this.request.signal);
    } catch {
      return; // The field works without suggestions.
    }
    if (document.activeElement !== this.input) return;
    this.from = answer.from;
    this.list.replaceChildren(...answer.suggestions.map((suggestion, at) => this.option(suggestion, at)));
    this.show(answer.suggestions.length > 0);
  }

  option({ text, kind }, at) {
    const press = (event) => {
      event.preventDefault();
      this.take(text);
    };
    return h("li", { id: `suggestion-${at}`, role: "option", "aria-selected": "false", "data-text": text, onpointerdown: press }, h("span", {}, text), h("span", { class: "kind" }, kind));
  }

  show(isOpen) {
    this.selected = -1;
    this.list.hidden = !isOpen;
    this.input.setAttribute("aria-expanded", String(isOpen));
    this.input.removeAttribute("aria-activedescendant");
  }

  hide() {
    this.request?.abort();
    this.show(false);
  }

  /** Select the suggestion that is `step` further, around the end. */
  move(step) {
    const options = [...this.list.children];
    const before = this.selected < 0 && step < 0 ? 0 : this.selected;
    this.selected = (before + step + options.length) % options.length;
    options.forEach((option, at) => option.setAttribute("aria-selected", String(at === this.selected)));
    options[this.selected].scrollIntoView({ block: "nearest" });
    this.input.setAttribute("aria-activedescendant", options[this.selected].id);
  }

  /** Put a suggestion into the field. After one that needs a value, the search waits for it. */
  take(text) {
    const { value, selectionStart } = this.input;
    const rest = value.slice(selectionStart ?? value.length);
    const needsValue = /[:>=]$/.test(text);
    const head = value.slice(0, this.from) + text + (needsValue || rest.startsWith(" ") ? "" : " ");
    this.input.value = head + rest;
    this.input.setSelectionRange(head.length, head.length);
    clearTimeout(this.timer);
    if (!needsValue) this.changed(this.input.value, false);
    this.suggest();
  }

  press(event) {
    const isOpen = !this.list.hidden;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (isOpen) this.move(event.key === "ArrowDown" ? 1 : -1);
      else this.suggest();
    } else if (event.key === "Enter") {
      event.preventDefault();
      this.enter();
    } else if (event.key === "Escape" && isOpen) {
      event.preventDefault();
      event.stopPropagation();
      this.hide();
    } else if (event.key === "Tab") this.hide();
  }

  enter() {
    if (this.selected >= 0) return this.take(this.list.children[this.selected].dataset.text);
    clearTimeout(this.timer);
    this.hide();
    this.changed(this.input.value, true);
  }
}
