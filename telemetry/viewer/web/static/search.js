// The search field: suggestions while one types, and what is wrong with it, at the field.

import { get } from "./api.js";
import { h } from "./dom.js";

const PAUSE = 150;
const HINT = "Task id, trace id, part of a name, key=value, wait>2s, status:stuck";

/** Make a search field that holds `value`; `changed(text, done)` hears of it, done on Enter. */
export function searchField(value, changed) {
  const input = h("input", {
    type: "search", value, "data-search": true, role: "combobox", autocomplete: "off", autocapitalize: "off", spellcheck: "false", maxlength: 2000,
    placeholder: HINT, "aria-label": "Search traces", "aria-expanded": "false", "aria-controls": "suggestions", "aria-autocomplete": "list", "aria-describedby": "search-error",
    oninput: () => typed(), onkeydown: (event) => press(event), onblur: () => close(), onclick: () => offer(),
  });
  const list = h("ul", { id: "suggestions", class: "suggestions", role: "listbox", "aria-label": "Suggestions", hidden: true });
  const problem = h("p", { id: "search-error", class: "field-error", role: "alert" });
  const element = h("div", { class: "search" }, input, list, problem);
  let timer = null;
  let request = null;
  let from = 0;
  let at = -1;

  function typed() {
    clearTimeout(timer);
    timer = setTimeout(() => {
      changed(input.value, false);
      offer();
    }, PAUSE);
  }

  async function offer() {
    request?.abort();
    request = new AbortController();
    let answer;
    try {
      answer = await get(`/api/suggest?${new URLSearchParams({ q: input.value.slice(0, input.selectionStart ?? undefined) })}`, request.signal);
    } catch {
      return; // The field works without.
    }
    if (document.activeElement !== input) return;
    from = answer.from;
    at = -1;
    list.replaceChildren(...answer.suggestions.map(({ text, kind }, number) => h("li", {
      id: `suggestion-${number}`, role: "option", "aria-selected": "false",
      onpointerdown: (event) => {
        event.preventDefault();
        take(text);
      },
    }, h("span", {}, text), h("span", { class: "kind" }, kind))));
    list.hidden = !answer.suggestions.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
    input.removeAttribute("aria-activedescendant");
  }

  function close() {
    request?.abort();
    list.hidden = true;
    at = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function move(step) {
    const options = [...list.children];
    at = (at + step + options.length + (at < 0 && step < 0 ? 1 : 0)) % options.length;
    options.forEach((option, number) => option.setAttribute("aria-selected", String(number === at)));
    options[at].scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", options[at].id);
  }

  function take(text) {
    const rest = input.value.slice(input.selectionStart ?? input.value.length);
    const goesOn = /[:>=]$/.test(text);
    const head = input.value.slice(0, from) + text + (goesOn || rest.startsWith(" ") ? "" : " ");
    input.value = head + rest;
    input.setSelectionRange(head.length, head.length);
    clearTimeout(timer);
    if (!goesOn) changed(input.value, false);
    offer();
  }

  function press(event) {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) offer();
      else move(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (at >= 0) return take(list.children[at].firstChild.textContent);
      clearTimeout(timer);
      close();
      changed(input.value, true);
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      event.stopPropagation();
      close();
    } else if (event.key === "Tab") {
      close();
    }
  }

  return {
    element,
    value: () => input.value.trim(),
    set(text) {
      input.value = text;
    },
    /** Say what is wrong, and where; an empty text takes it back. */
    complain(text, position) {
      problem.textContent = text && Number.isInteger(position) && position < input.value.length && position > 0 ? `At “${input.value.slice(position, position + 20)}”: ${text}` : text;
      if (text) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    },
    close() {
      clearTimeout(timer);
      request?.abort();
    },
  };
}
