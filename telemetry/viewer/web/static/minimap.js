// The whole trace as a small strip above the waterfall. Dragging chooses the part to show.

import { colorOf } from "./colors.js";
import { h, s } from "./dom.js";

const HEIGHT = 44;
const MOST = 300;
const CLICK = 4;

/** Make the strip. `choose(from, to)` is called with the part in milliseconds, or with null for everything. */
export function minimap(choose) {
  const bars = s("g");
  const left = s("rect", { class: "shade", x: 0, y: 0, height: HEIGHT });
  const right = s("rect", { class: "shade", y: 0, height: HEIGHT });
  const svg = s("svg", { height: HEIGHT, preserveAspectRatio: "none", viewBox: `0 0 1000 ${HEIGHT}`, "aria-hidden": "true" }, bars, left, right);
  const element = h("div", { class: "minimap", title: "Drag to zoom, double-click to reset", onpointerdown: (event) => drag(event), ondblclick: () => choose(null) }, svg);
  let range = [0, 1];
  let shown = "";

  const at = (event) => {
    const box = svg.getBoundingClientRect();
    return range[0] + ((range[1] - range[0]) * Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)));
  };

  function drag(event) {
    if (event.button) return;
    const start = at(event);
    const x = event.clientX;
    element.setPointerCapture(event.pointerId);
    const move = (to) => Math.abs(to.clientX - x) > CLICK && shade([Math.min(start, at(to)), Math.max(start, at(to))]);
    const end = (to) => {
      element.removeEventListener("pointermove", move);
      if (Math.abs(to.clientX - x) > CLICK) choose(Math.min(start, at(to)), Math.max(start, at(to)));
    };
    element.addEventListener("pointermove", move);
    element.addEventListener("pointerup", end, { once: true });
  }

  function shade(zoom) {
    const scale = (ms) => (1000 * (ms - range[0])) / (range[1] - range[0]);
    const [from, to] = zoom ? zoom.map(scale) : [0, 1000];
    left.setAttribute("width", Math.max(0, from));
    right.setAttribute("x", Math.min(1000, to));
    right.setAttribute("width", Math.max(0, 1000 - to));
  }

  return {
    element,
    draw(rows, whole, zoom) {
      const step = Math.max(1, Math.ceil(rows.length / MOST));
      const some = rows.filter((row, index) => row.kind !== "attempts" && index % step === 0);
      const height = Math.max(1, Math.min(4, HEIGHT / Math.max(1, some.length)));
      const scale = (ms) => (1000 * (ms - whole[0])) / (whole[1] - whole[0]);
      const key = JSON.stringify([some.length, rows[0]?.id, whole.map((ms) => Math.round(ms * 200 / (whole[1] - whole[0])))]) + rows.length;
      range = whole;
      if (key !== shown) {
        shown = key;
        const bar = (index, kind, from, to) => s("rect", { class: kind, x: scale(from), y: (HEIGHT * index) / some.length, width: Math.max(2, scale(to) - scale(from)), height });
        bars.replaceChildren(...some.flatMap((row, index) => pieces(row).map((piece) => bar(index, ...piece))));
      }
      shade(zoom);
    },
  };
}

/** The parts of a row with their colors: a wait may have two. */
function pieces(row) {
  if (!row.wait) return [[row.status === "error" ? "error" : colorOf(row.service_index), row.start_ms, row.end_ms]];
  const due = row.start_ms + (row.wait.scheduled_ms || 0);
  return [["scheduled", row.start_ms, due], ["queue", due, row.end_ms]].filter(([, from, to]) => to > from);
}
