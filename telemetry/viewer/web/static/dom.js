// Elements from data. Text is always a text node, so data never becomes markup.

const SVG = "http://www.w3.org/2000/svg";
const TERMINAL_COLORS = /\x1b\[[0-9;]*m/g;
// Control characters, and those that turn the direction of the text after them.
const CONTROLS = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]/g;

/** Make an HTML element. A property that begins with "on" is a listener. Properties and children that are null or false are left out. */
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
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false).map((child) => (typeof child === "string" ? visible(child) : child)));
  return element;
}

/** Text without characters that nobody sees and that change the text beside them. */
export function visible(text) {
  return text.replace(TERMINAL_COLORS, "").replace(CONTROLS, "\ufffd");
}

/** Set the text of an element, unless it has it already. */
export function setText(element, text) {
  const shown = visible(text);
  if (element.textContent !== shown) element.textContent = shown;
}

/** A placeholder until the first answer. The style sheet shows it with a delay, so that a fast answer does not flicker. */
export function loading() {
  return h("p", { class: "empty loading", role: "status" }, "Loading…");
}

/** An empty state: a title, and advice what to do. */
export function nothing(title, ...advice) {
  return h("div", { class: "nothing" }, h("h2", {}, title), h("div", {}, advice));
}

/** A title and the reason why there is nothing at this address, with the way to the traces. */
export function notFound(title, ...reason) {
  return h("div", { class: "nothing" }, h("h1", {}, title), h("p", {}, reason), h("p", {}, h("a", { href: "/", "data-link": "" }, "All traces")));
}

// The most characters of a name within a line of others.
const LONGEST_NAME = 80;

/** A name that is not longer than a line. */
export function shortened(name) {
  return name.length > LONGEST_NAME ? `${name.slice(0, LONGEST_NAME)}…` : name;
}

/** Set the title of the window to a name on this page. */
export function entitle(name) {
  document.title = visible(`${shortened(name)} · queuehop`);
}

/** A name that wraps after its dots, slashes and underscores. */
export function breakable(name) {
  return name.split(/(?<=[._/])/).flatMap((part, at) => (at ? [h("wbr"), part] : [part]));
}

/** The nodes of a text in which `backticks` mark code. A number stays in one line with its unit. */
export function prose(text, name = (text) => h("code", {}, text)) {
  const unbroken = (part) => visible(part).replace(/(\d) (?=(d|h|min|s|ms|µs)\b)/g, "$1\u00a0");
  return text.split(/`([^`]*)`/).map((part, at) => (at % 2 ? name(part) : unbroken(part)));
}

/** Show a short message, also to screen readers. */
export function toast(text) {
  const place = document.getElementById("toast");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(toast.timer);
  // Long enough to be read.
  toast.timer = setTimeout(() => place.classList.remove("shown"), Math.max(4000, 70 * text.length));
}
