// Small charts: three percentiles over time.

import { s } from "./dom.js";
import { duration } from "./format.js";

const LINES = ["p50", "p95", "p99"];

/** Draw `series` of `name` (wait or run): a line for each percentile. */
export function chart(series, name, { since, bucket, width = 112, height = 40 }) {
  const now = Date.now() / 1000;
  const begin = now - since;
  const values = series.flatMap((point) => LINES.map((line) => point[`${name}_${line}`])).filter((value) => value !== null && value !== undefined);
  const top = Math.max(...values, 0.001);
  const x = (t) => Math.max(3, Math.min(width - 3, ((t - begin) / since) * width));
  const y = (ms) => height - 2 - (ms / top) * (height - 6);
  const last = series.at(-1);
  const said = last ? LINES.map((line) => `${line} ${duration(last[`${name}_${line}`])}`).join(", ") : "nothing yet";
  return s(
    "svg",
    { class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${name === "wait" ? "Wait" : "Run"} over time; latest: ${said}; highest: ${duration(top)}` },
    s("line", { class: "base", x1: 0, x2: width, y1: height - 1.5, y2: height - 1.5 }),
    LINES.map((line) => {
      const points = series.filter((point) => point[`${name}_${line}`] !== null && point[`${name}_${line}`] !== undefined);
      if (points.length === 1) return s("circle", { class: `point ${line}`, cx: x(points[0].t + bucket / 2), cy: y(points[0][`${name}_${line}`]), r: 2.5 });
      return s("polyline", { class: `line ${line}`, points: points.map((point) => `${x(point.t + bucket / 2).toFixed(1)},${y(point[`${name}_${line}`]).toFixed(1)}`).join(" ") });
    }),
  );
}
