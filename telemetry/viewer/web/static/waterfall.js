// The rows of a trace against time. Only those in sight are elements, however many there are.

import { h, s } from "./dom.js";
import { duration, ticks } from "./format.js";

const ROW = 30;
const BEYOND = 10;
const LABEL = 60;
const MOST_ARROWS = 250;
const WAITS = [["scheduled", "until due"], ["queue", "in the queue"], ["prefetch", "for a process"]];
const CALM = matchMedia("(prefers-reduced-motion: reduce)");

/** Draw `trace`; return the element, and what may be done with it. */
export function waterfall(trace, { chosen, open }) {
  let rows = [];
  let shown = [];
  let byId = new Map();
  let active = 0;
  let began = Date.now();
  let found = false;
  const closed = new Set();
  const axis = h("div", { class: "axis", "aria-hidden": "true" });
  const canvas = h("div", { class: "canvas", role: "presentation" });
  const arrows = s("svg", { class: "arrows", "aria-hidden": "true" });
  const scroller = h("div", {
    class: "rows",
    role: "treegrid",
    tabindex: "0",
    "aria-label": "Spans and waits of the trace",
    "aria-readonly": "true",
    onscroll: () => draw(),
    onkeydown: (event) => press(event),
    onclick: (event) => click(event),
  }, canvas, arrows);
  const element = h("section", { class: "waterfall" }, h("div", { class: "columns", "aria-hidden": "true" }, h("span", {}, "Span"), axis), scroller);
  const watched = new ResizeObserver(() => draw(true));
  watched.observe(scroller);
  // Rows are made anew as a wait goes on, but not under a button that is held down.
  let held = false;
  const release = () => setTimeout(() => (held = false));
  scroller.addEventListener("pointerdown", () => (held = true));
  window.addEventListener("pointerup", release);
  const clock = setInterval(() => !held && trace.rows.some((row) => row.wait?.live) && draw(true), CALM.matches ? 1000 : 250);

  function take(fresh) {
    const at = shown[active]?.id;
    trace = fresh;
    began = Date.now();
    rows = trace.rows;
    byId = new Map(rows.map((row) => [row.id, row]));
    layout();
    const wanted = chosen && !found ? chosen : at;
    const again = wanted ? shown.findIndex((row) => row.id === wanted) : -1;
    if (again >= 0) active = again;
    found ||= !chosen || again >= 0;
  }

  function layout() {
    shown = [];
    let hidden = Infinity;
    for (const row of rows) {
      if (row.depth > hidden) continue;
      hidden = closed.has(row.id) ? row.depth : Infinity;
      shown.push(row);
    }
    active = Math.max(0, Math.min(active, shown.length - 1));
    canvas.style.setProperty("height", `${shown.length * ROW}px`);
    scroller.setAttribute("aria-rowcount", shown.length);
  }

  // A wait that still lasts goes on between two answers of the server.
  const grown = () => (trace.rows.some((row) => row.wait?.live) ? Date.now() - began : 0);
  const endOf = (row) => row.end_ms + (row.wait?.live ? grown() : 0);

  let last = "";
  function draw(anew = false) {
    const from = Math.max(0, Math.floor(scroller.scrollTop / ROW) - BEYOND);
    const to = Math.min(shown.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / ROW) + BEYOND);
    const key = `${from} ${to}`;
    if (!anew && key === last) return;
    last = key;
    // Asked before anything changes: it costs no layout.
    const room = Math.max(1, Math.min(5, Math.floor(axis.clientWidth / LABEL)));
    const first = Math.min(0, ...trace.rows.slice(0, 1).map((row) => row.start_ms));
    const whole = Math.max(0.001, trace.duration_ms + grown() - first);
    const percent = (ms) => (100 * (ms - first)) / whole;
    const wanted = Array.from({ length: to - from }, (_, at) => from + at);
    if (active < from || active >= to) wanted.push(active);
    canvas.replaceChildren(...wanted.filter((at) => shown[at]).map((at) => line(shown[at], at, percent)));
    axis.replaceChildren(...ticks(whole, room).map((ms) => h("span", { style: { left: `${percent(ms + first)}%` } }, ms ? duration(ms) : "0")));
    scroller.setAttribute("aria-activedescendant", shown[active] ? domId(shown[active]) : "");
    drawArrows(from, to, percent);
  }

  function line(row, at, percent) {
    const wait = row.wait;
    const label = wait ? waitLabel(row) : row.name;
    const marks = [
      row.attempt ? h("span", { class: "badge" }, `attempt ${row.attempt}`) : null,
      row.state && row.state !== "SUCCESS" ? h("span", { class: `badge ${row.status === "error" ? "error" : "state"}` }, row.state) : row.status === "error" ? h("span", { class: "badge error" }, "ERROR") : null,
      wait?.live ? h("span", { class: "badge waiting" }, "still waiting") : null,
      wait?.skewed ? h("span", { class: "badge broken", title: "the clocks of producer and worker disagree" }, wait.skew_ms ? `clocks differ by ${duration(wait.skew_ms)}` : "clocks differ") : null,
      row.missing_parent ? h("span", { class: "badge broken", title: row.missing_parent }, "parent missing") : null,
    ];
    const foldable = row.has_children;
    const lasted = endOf(row) - row.start_ms;
    return h(
      "div",
      {
        class: `row ${row.kind} ${at === active ? "active" : ""} ${row.status}`,
        id: domId(row),
        role: "row",
        "aria-rowindex": at + 1,
        "aria-level": row.depth + 1,
        "aria-expanded": foldable ? String(!closed.has(row.id)) : null,
        "aria-selected": String(at === active),
        "data-at": at,
        style: { top: `${at * ROW}px` },
      },
      h(
        "div",
        { class: "name", role: "gridcell", style: { "padding-left": `${Math.min(row.depth, 24) * 14 + 4}px` }, title: [label, row.message, row.missing_parent].filter(Boolean).join("\n") },
        foldable ? h("button", { type: "button", class: "fold", tabindex: "-1", "aria-hidden": "true" }, closed.has(row.id) ? "▸" : "▾") : h("span", { class: "fold" }),
        wait ? h("i", { class: "hourglass queue", "aria-hidden": "true" }) : h("i", { class: `service s${row.service_index % 8}`, "aria-hidden": "true" }),
        h("span", { class: "label" }, label),
        wait ? null : h("span", { class: "who" }, row.service),
        marks,
      ),
      h("div", { class: "time", role: "gridcell", "aria-label": `${duration(lasted)}, from ${duration(row.start_ms)}` }, wait ? waitBar(row, percent) : spanBar(row, percent), row.critical.map(([from, to]) => h("i", { class: "on-path", style: { left: `${percent(from)}%`, width: `${percent(to) - percent(from)}%` } })), h("span", { class: "lasted", style: { left: `calc(${percent(endOf(row))}% + 6px)` } }, duration(lasted))),
    );
  }

  function spanBar(row, percent) {
    const from = percent(row.start_ms);
    return h("i", { class: `bar s${row.service_index % 8} ${row.status}`, style: { left: `${from}%`, width: `${Math.max(0, percent(row.end_ms) - from)}%` } });
  }

  function waitBar(row, percent) {
    const parts = WAITS.map(([name]) => [name, row.wait[`${name}_ms`] || 0]);
    if (row.wait.live) {
      const known = parts.reduce((sum, [, ms]) => sum + ms, 0);
      parts[1][1] += Math.max(0, endOf(row) - row.start_ms - known);
    }
    const sum = parts.reduce((total, [, ms]) => total + ms, 0) || 1;
    const from = percent(row.start_ms);
    const width = Math.max(0, percent(endOf(row)) - from);
    return h("span", { class: `bar wait ${row.wait.live ? "live" : ""} ${row.wait.estimated ? "estimated" : ""}`, style: { left: `${from}%`, width: `${width}%` } }, parts.filter(([, ms]) => ms > 0).map(([name, ms]) => h("i", { class: name, style: { width: `${(100 * ms) / sum}%` }, title: `${WAITS.find(([it]) => it === name)[1]}: ${duration(ms)}` }, (width * ms) / sum > 12 ? WAITS.find(([it]) => it === name)[1] : "")));
  }

  function waitLabel(row) {
    const wait = row.wait;
    const so = wait.live ? " so far" : "";
    const told = WAITS.map(([name, word]) => [wait[`${name}_ms`] || 0, name === "queue" ? `in ${wait.queue || "the queue"}` : word]);
    if (wait.live) told[1][0] += grown();
    const said = told.filter(([ms]) => ms >= 0.05).map(([ms, word]) => `${duration(ms)} ${word}`);
    return `waited ${said.join(", ") || duration(endOf(row) - row.start_ms)}${so}${wait.estimated ? ", by the clocks" : ""}`;
  }

  function drawArrows(from, to, percent) {
    const time = canvas.querySelector(".time");
    const [left, width] = [time?.offsetLeft ?? 0, time?.clientWidth ?? 0];
    const at = new Map(shown.map((row, index) => [row.id, index]));
    const x = (ms) => left + (width * percent(ms)) / 100;
    arrows.replaceChildren();
    arrows.setAttribute("height", shown.length * ROW);
    arrows.style.setProperty("height", `${shown.length * ROW}px`);
    const inSight = (index) => index >= from && index < to;
    let drawn = 0;
    for (const link of trace.links) {
      if (link.kind === "link") continue;
      const [body, header] = [at.get(link.from), at.get(link.to)];
      if (body === undefined || header === undefined || !(inSight(body) || inSight(header))) continue;
      if (++drawn > MOST_ARROWS) break;
      const [x1, y1] = [x(shown[header].end_ms), header * ROW + ROW / 2];
      const [x2, y2] = [x(shown[body].start_ms), body * ROW + ROW / 2];
      const bend = Math.max(14, Math.abs(x2 - x1) / 2);
      arrows.append(s("path", { class: `arrow ${link.kind}`, d: `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2 - 3},${y2}` }), s("path", { class: `tip ${link.kind}`, d: `M${x2},${y2} l-6,-4 l0,8 z` }));
    }
  }

  function move(to) {
    active = Math.max(0, Math.min(shown.length - 1, to));
    const top = active * ROW;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + ROW > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + ROW - scroller.clientHeight;
    draw(true);
  }

  function fold(row, close) {
    if (!row?.has_children) return;
    closed[close ? "add" : "delete"](row.id);
    layout();
    draw(true);
  }

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const row = shown[active];
    const page = Math.max(1, Math.floor(scroller.clientHeight / ROW) - 1);
    const does = {
      ArrowDown: () => move(active + 1),
      ArrowUp: () => move(active - 1),
      PageDown: () => move(active + page),
      PageUp: () => move(active - page),
      Home: () => move(0),
      End: () => move(shown.length - 1),
      ArrowRight: () => (closed.has(row.id) ? fold(row, false) : row.has_children && move(active + 1)),
      ArrowLeft: () => (row.has_children && !closed.has(row.id) ? fold(row, true) : row.parent !== null && move(shown.findIndex((it) => it.id === row.parent))),
      Enter: () => choose(row),
      " ": () => choose(row),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    event.stopPropagation();
    does();
  }

  function click(event) {
    const line_ = event.target.closest(".row");
    if (!line_) return;
    active = Number(line_.dataset.at);
    const row = shown[active];
    if (event.target.closest(".fold") && row.has_children) fold(row, !closed.has(row.id));
    else choose(row);
  }

  function choose(row) {
    draw(true);
    open(spanOf(row));
  }

  // A wait is told by the span that it led to, or the one that it began with.
  const spanOf = (row) => (row.kind === "wait" ? row.id.slice("wait:".length) : row.id);
  const domId = (row) => `row-${row.id.replace(":", "-")}`;

  take(trace);
  return {
    element,
    update(fresh) {
      take(fresh);
      draw(true);
    },
    focus() {
      scroller.focus({ preventScroll: true });
      move(active);
    },
    toggleAll() {
      const close = !closed.size;
      closed.clear();
      if (close) for (const row of rows) if (row.has_children && row.depth > 0) closed.add(row.id);
      layout();
      draw(true);
    },
    traceparent: (use, id) => use(`00-${id}-${spanOf(shown[active])}-01`),
    close() {
      clearInterval(clock);
      watched.disconnect();
      window.removeEventListener("pointerup", release);
    },
  };
}
