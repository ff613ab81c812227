// Services, queues and stores, and what goes between them.

import { get } from "./api.js";
import { h, s } from "./dom.js";
import { count, duration, rate } from "./format.js";
import { range } from "./queues.js";
import { everySeconds } from "./stream.js";

const WIDTH = 150;
const HEIGHT = 46;
const ACROSS = 104;
const DOWN = 34;

/** Show the map in `view`. */
export function showMap(view) {
  document.title = "Map · queuehop";
  const place = h("div");
  const chosen = range("/map", () => read());
  let closed = false;
  view.append(h("div", { class: "page-head" }, h("h1", {}, "Map"), chosen.element), place);

  async function read() {
    let answer;
    try {
      answer = await get(`/api/map?since_s=${chosen.value()}`);
    } catch (error) {
      // What was read before stays, marked as old by the frame.
      if (!closed && !(error.unreachable && place.childElementCount)) place.replaceChildren(h("p", { class: "empty" }, error.message));
      return;
    }
    if (closed) return;
    place.replaceChildren(...(answer.nodes.length ? [h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The map" }, graph(answer)), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The map as a table" }, table(answer))] : [h("p", { class: "empty" }, "Nothing has gone anywhere in this time. Choose a longer one, or wait.")]));
  }

  read();
  const stop = everySeconds(10, read);
  return {
    refresh: read,
    keys: { r: read },
    close() {
      closed = true;
      stop();
    },
  };
}

/** The column of each node: behind everything that leads to it; what leads back is not followed. */
function columns(nodes, edges) {
  const from = new Map(nodes.map((node) => [node.id, edges.filter((edge) => edge.to === node.id && edge.from !== node.id).map((edge) => edge.from)]));
  const found = new Map();
  const column = (id, above) => {
    if (found.has(id)) return found.get(id);
    if (above.has(id)) return -1;
    above.add(id);
    const at = 1 + Math.max(-1, ...(from.get(id) || []).map((before) => column(before, above)));
    above.delete(id);
    found.set(id, at);
    return at;
  };
  for (const node of nodes) column(node.id, new Set());
  return found;
}

function graph({ nodes, edges }) {
  const at = columns(nodes, edges);
  const places = new Map();
  const filled = [];
  for (const node of nodes.toSorted((a, b) => b.count - a.count)) {
    const column = at.get(node.id);
    filled[column] = filled[column] || 0;
    places.set(node.id, { x: 12 + column * (WIDTH + ACROSS), y: 14 + filled[column] * (HEIGHT + DOWN) });
    filled[column] += 1;
  }
  const width = 24 + filled.length * (WIDTH + ACROSS) - ACROSS;
  const height = 20 + Math.max(...filled.map((count_) => count_ || 0)) * (HEIGHT + DOWN);
  return s(
    "svg",
    { class: "map", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "What calls what; the table below says the same" },
    s("defs", {}, s("marker", { id: "tip", viewBox: "0 0 8 8", refX: 8, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto" }, s("path", { d: "M0,0 L8,4 L0,8 z" }))),
    edges.map((edge) => arrow(edge, places)),
    nodes.map((node) => box(node, places.get(node.id))),
  );
}

function arrow(edge, places) {
  const [from, to] = [places.get(edge.from), places.get(edge.to)];
  if (!from || !to) return null;
  const [x1, y1] = [from.x + WIDTH, from.y + HEIGHT / 2];
  const [x2, y2] = [to.x, to.y + HEIGHT / 2];
  const back = x2 <= x1;
  const bend = back ? 70 : Math.max(30, (x2 - x1) / 2);
  const path = `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`;
  const [mx, my] = [(x1 + x2) / 2, (y1 + y2) / 2 + (back ? 24 : 0)];
  return s("g", { class: `edge ${edge.errors ? "bad" : ""}` }, s("title", {}, `${edge.from} to ${edge.to}: ${count(edge.count)}, ${edge.errors} failed`), s("path", { d: path, "marker-end": "url(#tip)" }), s("text", { x: mx, y: my - 5, "text-anchor": "middle" }, rate(edge.per_s)), edge.p50_ms === null || edge.p50_ms === undefined ? null : s("text", { class: "small", x: mx, y: my + 10, "text-anchor": "middle" }, duration(edge.p50_ms)));
}

function box(node, { x, y }) {
  const shape = node.kind === "queue" ? { rx: HEIGHT / 2 } : node.kind === "store" ? { rx: 3, "stroke-dasharray": "4 3" } : { rx: 8 };
  const name = node.name.length > 20 ? `${node.name.slice(0, 19)}…` : node.name;
  return s("g", { class: `node ${node.kind} ${node.errors ? "bad" : ""}`, transform: `translate(${x},${y})` }, s("title", {}, node.name), s("rect", { width: WIDTH, height: HEIGHT, ...shape }), s("text", { x: WIDTH / 2, y: 20, "text-anchor": "middle" }, name), s("text", { class: "small", x: WIDTH / 2, y: 36, "text-anchor": "middle" }, `${node.kind}, ${count(node.count)}${node.errors ? `, ${count(node.errors)} failed` : ""}`));
}

function table({ nodes, edges }) {
  const name = (id) => nodes.find((node) => node.id === id)?.name ?? id;
  return h("table", { class: "edges" }, h("caption", {}, "The same as a table"), h("thead", {}, h("tr", {}, ["From", "To", "Times", "Rate", "Failed", "p50"].map((text, at) => h("th", { scope: "col", class: at > 1 ? "number" : null }, text)))), h("tbody", {}, edges.toSorted((a, b) => b.count - a.count).map((edge) => h("tr", {}, h("td", {}, name(edge.from)), h("td", {}, name(edge.to)), h("td", { class: "number" }, count(edge.count)), h("td", { class: "number" }, rate(edge.per_s)), h("td", { class: "number" }, count(edge.errors)), h("td", { class: "number" }, edge.p50_ms === null ? "–" : duration(edge.p50_ms))))));
}
