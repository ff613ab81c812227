// The map of services, queues and stores, and of calls and messages between them. The server computes the layout.

import { breakable, entitle, h, nothing, s } from "./dom.js";
import { compact, count, duration, rate } from "./format.js";
import { polling } from "./polling.js";
import { linked, pageOf, tracesOf } from "./queues.js";
import { range } from "./range.js";

const narrow = matchMedia("(max-width: 56rem)");
const CORNER = 12;
// The width of a letter of a label, and of the longest label.
const [LETTER, LABEL] = [6.6, 98];

/** Show the map in `view`. */
export function showMap(view) {
  entitle("Map");
  const place = h("div");
  const chosen = range("/map", () => page.refresh());
  let isPlaced = false;
  view.append(h("div", { class: "page-head" }, h("h1", {}, "Map"), chosen.element, legend()), place);
  const page = polling(place, {
    address: () => `/api/map?since_s=${chosen.value()}&direction=${narrow.matches ? "down" : "right"}`,
    seconds: 10,
    show(answer) {
      if (!answer.nodes.length) return [nothing("No spans in this time range", "Choose a longer time range, or wait. The page updates itself.")];
      if (!isPlaced) requestAnimationFrame(() => begin(place.querySelector(".map-scroll"), answer.nodes));
      isPlaced = true;
      return [
        h("div", { class: "scroll map-scroll", tabindex: "0", role: "region", "aria-label": "Map", "data-key": "map" }, graph(answer, chosen.value())),
        h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Map as a table", "data-key": "table" }, table(answer, chosen.value())),
      ];
    },
  });
  narrow.addEventListener("change", page.refresh);
  return {
    ...page,
    close() {
      page.close();
      narrow.removeEventListener("change", page.refresh);
    },
  };
}

/** Scroll a map that is larger than the window to its first node. */
function begin(scroller, nodes) {
  const layer = narrow.matches ? "y" : "x";
  const first = nodes.reduce((one, other) => (other[layer] < one[layer] ? other : one));
  const svg = scroller.firstElementChild;
  const scale = svg.clientWidth / svg.viewBox.baseVal.width;
  scroller.scrollTo(scale * (first.x + first.width / 2) - scroller.clientWidth / 2, scale * (first.y + first.height / 2) - scroller.clientHeight / 2);
}

function legend() {
  return h("p", { class: "legend" }, ["service", "queue", "store"].map((kind) => h("span", {}, h("i", { class: `swatch kind-${kind}`, "aria-hidden": "true" }), kind)), h("span", {}, "On an edge: rate, and p50 (±2.2 %) of the call, or of the wait in the queue."));
}

/** The address that a node links to: the page of a queue, or the traces of a service. */
function address(node, since) {
  if (node.kind === "queue") return pageOf(node.name, node.broker, since);
  if (node.kind === "service" && node.name) return tracesOf({ service: node.name, since_s: since });
  return null;
}

/** What the traces with this edge have. */
function factsOf(edge, nodes, since) {
  const ends = [edge.from, edge.to].map((id) => nodes.get(id));
  const queue = ends.find((node) => node.kind === "queue");
  const service = ends.findLast((node) => node.kind === "service");
  const call = ends.map((node) => node.name).join(" → ");
  return { service: service?.name || null, queue: queue?.name, broker: queue?.broker, since_s: since, q: call.includes('"') ? null : `call:"${call}"` };
}

/** The number of failures of an edge, with a link: those of runs, of sends, or of calls. */
function failures(edge, nodes, since) {
  const status = nodes.get(edge.from).kind === "queue" ? "failure" : nodes.get(edge.to).kind === "queue" ? "unsent" : "error";
  return linked(edge.errors, { ...factsOf(edge, nodes, since), status }, { key: `failed ${edge.from} ${edge.to}`, kind: "bad" });
}

function graph({ nodes, edges, width, height }, since) {
  const known = new Map(nodes.map((node) => [node.id, node]));
  return s(
    "svg",
    { class: "map", viewBox: `0 0 ${width} ${height}`, style: { "--natural": `${width}px` }, role: "group", "aria-label": "Calls and messages between services. The table below has the same data." },
    s("defs", {}, ["", "bad-"].map((kind) => s("marker", { id: `${kind}tip`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto" }, s("path", { d: "M0,0 L8,4 L0,8 z" })))),
    edges.map((edge) => line(edge, known)),
    nodes.map((node) => box(node, since)),
    edges.map((edge) => label(edge, known, since)),
  );
}

const lengths = (edge) => [rate(edge.per_s), edge.p50_ms === null ? "" : ` ${duration(edge.p50_ms)}`];

/** An edge in words. */
function described(edge, nodes) {
  return `${nodes.get(edge.from).label} to ${nodes.get(edge.to).label}: ${lengths(edge).join("")}, ${count(edge.count)} times, ${count(edge.errors)} failed`;
}

function line(edge, nodes) {
  const tip = edge.errors ? "bad-tip" : "tip";
  return s("path", { class: `edge ${edge.errors ? "bad" : ""} ${edge.back ? "back" : ""}`, d: path(edge.points), "marker-end": `url(#${tip})`, "aria-hidden": "true" }, s("title", {}, described(edge, nodes)));
}

/** A path through the points with round corners. */
function path(points) {
  const parts = [`M${points[0]}`];
  for (let at = 1; at < points.length - 1; at++) {
    const [before, corner, after] = [points[at - 1], points[at], points[at + 1]];
    parts.push(`L${towards(corner, before)}`, `Q${corner} ${towards(corner, after)}`);
  }
  return [...parts, `L${points.at(-1)}`].join(" ");
}

function towards([x, y], [toX, toY]) {
  const length = Math.hypot(toX - x, toY - y);
  const share = length ? Math.min(CORNER, length / 2) / length : 0;
  return [x + (toX - x) * share, y + (toY - y) * share].map((value) => value.toFixed(1));
}

function label(edge, nodes, since) {
  if (!edge.label) return null;
  const [x, y] = edge.label;
  const [first, second] = lengths(edge);
  const width = Math.min(LABEL, LETTER * (first + second).length + 4);
  // A text that may be wider than its place is compressed.
  const bound = width === LABEL ? { textLength: LABEL - 4, lengthAdjust: "spacingAndGlyphs" } : {};
  const name = described(edge, nodes);
  return s("a", { class: "edge-label", href: tracesOf(factsOf(edge, nodes, since)), "data-link": "", "data-key": `${edge.from} ${edge.to}`, "aria-label": `${name}. Show traces` }, s("title", {}, name), s("rect", { x: x - width / 2, y: y - 7, width, height: 14, rx: 4 }), s("text", { class: "small", x, y: y + 4, "text-anchor": "middle", ...bound }, s("tspan", { class: "rate" }, first), second));
}

function box(node, since) {
  const { x, y, width, height, lines } = node;
  const shape = node.kind === "queue" ? { rx: height / 2 } : node.kind === "store" ? { rx: 3, "stroke-dasharray": "4 3" } : { rx: 8 };
  const words = [node.kind, node.count && compact(node.count), node.errors && `${compact(node.errors)} failed`].filter(Boolean).join(" · ");
  const middle = y + (height - 17 * lines.length - 17) / 2;
  const drawn = [
    s("title", {}, `${node.label}: ${words}`),
    s("rect", { x, y, width, height, ...shape }),
    lines.map((text, at) => s("text", { x: x + width / 2, y: middle + 13 + 17 * at, "text-anchor": "middle" }, text)),
    s("text", { class: "small", x: x + width / 2, y: middle + 17 * lines.length + 13, "text-anchor": "middle" }, words),
  ];
  const kind = `node ${node.kind} ${node.errors ? "bad" : ""}`;
  const href = address(node, since);
  return href ? s("a", { class: kind, href, "data-link": "", "data-key": node.id, "aria-label": `${node.label}, ${words}` }, drawn) : s("g", { class: kind }, drawn);
}

function table({ nodes, edges }, since) {
  const known = new Map(nodes.map((node) => [node.id, node]));
  const name = (id) => {
    const node = known.get(id);
    const href = address(node, since);
    return href ? h("a", { href, "data-link": "", "data-key": `table ${id}` }, breakable(node.label)) : breakable(node.label);
  };
  return h(
    "table",
    { class: "edges" },
    h("caption", {}, "Calls and messages"),
    h("thead", {}, h("tr", {}, ["From", "To", "Count", "Rate", "Failed", "p50"].map((text, at) => h("th", { scope: "col", class: at > 1 ? "number" : null }, text)))),
    h("tbody", {}, edges.toSorted((a, b) => b.count - a.count).map((edge) => h("tr", {}, h("td", {}, name(edge.from)), h("td", {}, name(edge.to)), h("td", { class: "number" }, linked(edge.count, factsOf(edge, known, since), { key: `table ${edge.from} ${edge.to}` })), h("td", { class: "number" }, rate(edge.per_s)), h("td", { class: "number" }, failures(edge, known, since)), h("td", { class: "number" }, duration(edge.p50_ms))))),
  );
}
