// Arrows between the rows of a trace: from an attempt to the next, from a chord's headers to its body.

import { s } from "./dom.js";

const MOST = 250;

/** Draw the links of the rows in view into `svg`. */
export function arrowsOf(svg, { canvas, shown, links, from, to, percent, height, middle }) {
  const time = canvas.querySelector(".time");
  const [left, width] = [time?.offsetLeft ?? 0, time?.clientWidth ?? 0];
  const at = new Map(shown.map((row, index) => [row.id, index]));
  const x = (ms) => left + (width * Math.max(0, Math.min(100, percent(ms)))) / 100;
  svg.replaceChildren();
  svg.setAttribute("height", shown.length * height);
  svg.style.setProperty("height", `${shown.length * height}px`);
  const isInView = (index) => index >= from && index < to;
  let drawn = 0;
  for (const link of links) {
    if (link.kind === "link") continue;
    const [body, header] = [at.get(link.from), at.get(link.to)];
    if (body === undefined || header === undefined || !(isInView(body) || isInView(header))) continue;
    if (++drawn > MOST) break;
    const [x1, y1] = [x(shown[header].end_ms), header * height + middle];
    const [x2, y2] = [x(shown[body].start_ms), body * height + middle];
    const bend = Math.max(14, Math.abs(x2 - x1) / 2);
    svg.append(s("path", { class: `arrow ${link.kind}`, d: `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2 - 3},${y2}` }), s("path", { class: `tip ${link.kind}`, d: `M${x2},${y2} l-6,-4 l0,8 z` }));
  }
}
