// Charts over time: small ones for a row of a table, and large ones with axes.

import { h, s } from "./dom.js";
import { ticks } from "./format.js";

// On a narrow page, one chart is as wide as the page.
const NARROW = matchMedia("(max-width: 64rem)");
const MARGIN = { left: 70, right: 10, top: 8, bottom: 20 };

/** A line through the values at `key`, with gaps where there is none. A value between two gaps is a dot. */
function line(series, { key, name }, x, y) {
  const parts = [];
  const dots = [];
  let drawing = false;
  for (const [at, point] of series.entries()) {
    const value = point[key] ?? null;
    if (value === null) {
      drawing = false;
      continue;
    }
    const [cx, cy] = [x(point.t).toFixed(1), y(value).toFixed(1)];
    if (!drawing && (series[at + 1]?.[key] ?? null) === null) dots.push(s("circle", { class: `line alone ${name}`, cx, cy, r: 2 }));
    else parts.push(`${drawing ? "L" : "M"}${cx},${cy}`);
    drawing = true;
  }
  return [s("path", { class: `line ${name}`, d: parts.join("") }), dots];
}

/** A sample of a line for the legend. */
function sample({ name }) {
  if (name.startsWith("dot-")) return h("i", { class: `swatch ${name}`, "aria-hidden": "true" });
  return s("svg", { class: "sample", width: 18, height: 8, "aria-hidden": "true" }, s("line", { class: `line ${name}`, x1: 0, x2: 18, y1: 4, y2: 4 }));
}

function largest(series, lines) {
  return Math.max(0, ...series.flatMap((point) => lines.map(({ key }) => point[key] ?? 0)));
}

/** A small chart without axes. `label` describes it to screen readers. */
export function sparkline(series, lines, { label, width = 96, height = 26 }) {
  const top = Math.max(largest(series, lines), 1);
  const [first, last] = [series[0]?.t ?? 0, series.at(-1)?.t ?? 1];
  const x = (t) => 1 + ((t - first) / Math.max(1, last - first)) * (width - 4);
  const y = (value) => height - 2 - (value / top) * (height - 4);
  return s(
    "svg",
    { class: "spark", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label },
    s("line", { class: "base", x1: 0, x2: width, y1: height - 1.5, y2: height - 1.5 }),
    lines.map((one) => line(series, one, x, y)),
  );
}

/** A chart with axes, a legend, and the values of each moment on hover. The vertical axis reaches at least to `least`. */
export function chart(series, lines, { title, format, tick = format, since, now, bucket, height = 180, isWide = false, dots = null, least = 0 }) {
  // The width in pixels of its place, or it would be scaled with its text.
  const room = document.documentElement.clientWidth;
  const width = isWide || NARROW.matches ? room - 57 : room / 2 - 46;
  const begin = now - since;
  const inner = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
  const top = Math.max(largest(series, lines), ...(dots ?? []).map((dot) => dot.value), least) || 1;
  const scale = ticks(top, 4);
  // The highest line of the grid is above the highest value.
  if (scale.at(-1) < top) scale.push(2 * scale.at(-1) - scale.at(-2));
  const highest = scale.at(-1);
  const x = (t) => MARGIN.left + Math.max(0, Math.min(1, (t - begin) / since)) * inner.width;
  const y = (value) => MARGIN.top + inner.height - (value / highest) * inner.height;
  const moments = times(begin, now, Math.max(2, Math.floor(inner.width / 90)));
  return h(
    "figure",
    { class: "chart", "data-key": title },
    h("figcaption", {}, h("span", { class: "chart-title" }, title), h("span", { class: "legend" }, lines.length > 1 ? lines.map((one) => h("span", {}, sample(one), one.label)) : "")),
    s(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, role: dots ? "group" : "img", "aria-label": `${title}: ${summary(series, lines, format)}` },
      scale.map((value) => [s("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }), s("text", { class: "tick", x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, tick(value))]),
      moments.map(({ t, text }, at) => s("text", { class: "tick", x: x(t), y: height - 4, "text-anchor": at === 0 && x(t) < MARGIN.left + 16 ? "start" : x(t) > width - 24 ? "end" : "middle" }, text)),
      lines.map((one) => line(series, one, (t) => x(t + bucket / 2), y)),
      series.map((point) => s("rect", { class: "moment", x: x(point.t), y: MARGIN.top, width: Math.max(0.5, x(point.t + bucket) - x(point.t)), height: inner.height }, s("title", {}, `${clock(point.t)}\n${lines.map(({ key, label }) => `${label}: ${format(point[key])}`).join("\n")}`))),
      (dots ?? []).map((dot) => s("a", { href: dot.href, "data-link": "", tabindex: "-1", "aria-hidden": "true", class: "dot-link" }, s("title", {}, dot.title), s("circle", { class: `point ${dot.name}`, cx: x(dot.t).toFixed(1), cy: y(dot.value).toFixed(1), r: 3.5 }))),
    ),
  );
}

function summary(series, lines, format) {
  return lines
    .map(({ key, label }) => {
      const values = series.map((point) => point[key]).filter((value) => value !== null && value !== undefined);
      return values.length ? `${label} now ${format(values.at(-1))}, highest ${format(Math.max(...values))}` : `${label} none`;
    })
    .join("; ");
}

/** At most `most` round times between two, and their labels. */
function times(begin, end, most) {
  const steps = [60, 300, 600, 900, 1800, 3600, 10800, 21600, 43200, 86400, 172800, 604800];
  const step = steps.find((seconds) => (end - begin) / seconds <= most) ?? 604800;
  const shift = new Date(begin * 1000).getTimezoneOffset() * 60;
  const found = [];
  for (let t = Math.ceil((begin - shift) / step) * step + shift; t <= end; t += step) found.push({ t, text: step >= 86400 ? new Date(t * 1000).toLocaleDateString("en", { month: "short", day: "numeric" }) : clock(t) });
  return found;
}

function clock(t) {
  return new Date(t * 1000).toLocaleTimeString("en", { hourCycle: "h23", hour: "2-digit", minute: "2-digit" });
}
