// Elements from data. Text is always a text node: nothing that a span says becomes markup.

const SVG = "http://www.w3.org/2000/svg";

/** Make an HTML element. Properties beginning with "on" listen; null and false are left out. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** Make an SVG element. */
export function s(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, it] of Object.entries(value)) element.style.setProperty(key, it);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** What is shown until the first answer; the style sheet waits with it, so that a fast one does not flicker. */
export function loading() {
  return h("p", { class: "empty loading", role: "status" }, "Loading…");
}

/** What a page says when it has nothing to show, and what to do about it. */
export function nothing(title, ...advice) {
  return h("div", { class: "nothing" }, h("h2", {}, title), h("div", {}, advice));
}

/** A name that breaks after its dots, slashes and underscores rather than within a word. */
export function breakable(name) {
  return name.split(/(?<=[._/])/).flatMap((part, at) => (at ? [h("wbr"), part] : [part]));
}

/** Text in which `backticks` stand for code. */
export function prose(text) {
  return text.split(/`([^`]*)`/).map((part, at) => (at % 2 ? h("code", {}, part) : part));
}

/** Put a short message where screen readers and eyes find it. */
export function toast(text) {
  const place = document.getElementById("toast");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(toast.timer);
  // Long enough to be read.
  toast.timer = setTimeout(() => place.classList.remove("shown"), Math.max(4000, 70 * text.length));
}
