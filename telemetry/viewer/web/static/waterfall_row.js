// One row of the waterfall: the name of a span, wait or fold of attempts, and its bar.

import { colorOf } from "./colors.js";
import { h, setText } from "./dom.js";
import { clock, counted, duration, tick } from "./format.js";
import { STATUS_WORDS } from "./status.js";

// The most log records of one row that are drawn.
const MOST_TICKS = 100;
// The width of a letter in a bar in pixels.
const LETTER = 7;
// Indentation in pixels, and the depth from which it stays the same.
const [INDENT, DEEPEST] = [14, 24];
// A shorter part of a wait is not in the label, in milliseconds.
const SHORTEST = 0.05;
const WAITS = [["scheduled", "scheduled", "until the message was due"], ["queue", "in queue", "in the broker"], ["prefetch", "prefetched", "in the worker, until a process was free"]];

// The properties that change without another element.
const CHANGING = new Set(["start_ms", "end_ms", "self_ms", "waited_ms", "scheduled_ms", "queue_ms", "prefetch_ms"]);

/** Return a text that differs when a row needs other elements. */
export const formOf = (row) => JSON.stringify(row, (key, value) => (CHANGING.has(key) ? null : key === "critical" ? value.length : value));

export const idOf = (row) => `row-${row.id.replaceAll(":", "-")}`;

/** Make the element of a row. `place(row, …)` moves and updates it for a row of the same form. */
export function waterfallRow(row) {
  const label = h("span", { class: "label" });
  const fold = h("span", { class: "fold", "aria-hidden": "true" });
  const name = h("div", { class: "name", role: "gridcell", style: { "padding-left": `${Math.min(row.depth, DEEPEST) * INDENT + 2}px` } }, fold, iconOf(row), label, row.kind === "span" ? h("span", { class: "who" }, row.service) : null, marksOf(row));
  const time = timeCell(row);
  const element = h("div", { id: idOf(row), role: "row", "aria-level": row.depth + 1, style: {} }, name, time.element);

  /** `at` is the number of the row, `percent` turns milliseconds into a place, and `axisWidth` is in pixels. */
  function place(row, { at, top, isSelected, isMatch, isFolded, percent, axisWidth }) {
    const text = row.wait ? waitLabel(row.wait) : row.name;
    element.className = `row ${row.kind} ${isSelected ? "active" : ""} ${row.status} ${isMatch ? "match" : ""}`;
    element.style.setProperty("top", `${top}px`);
    element.dataset.at = at;
    element.setAttribute("aria-rowindex", at + 1);
    element.setAttribute("aria-selected", String(isSelected));
    if (row.has_children) {
      element.setAttribute("aria-expanded", String(!isFolded));
      setText(fold, isFolded ? "▸" : "▾");
    }
    setText(label, text);
    name.title = [text, row.message, row.missing_parent].filter(Boolean).join("\n");
    time.place(row, percent, axisWidth);
  }
  return { element, place };
}

function iconOf(row) {
  if (row.wait) return h("i", { class: "hourglass queue", "aria-hidden": "true" });
  return row.kind === "span" ? h("i", { class: `service ${colorOf(row.service_index)}`, "aria-hidden": "true" }) : null;
}

function marksOf({ attempt, state, status, wait, missing_parent: missing, link }) {
  const badge = (kind, text, title) => h("span", { class: `badge ${kind}`, title }, text);
  const isFailed = status === "error";
  return [
    attempt ? badge("", `attempt ${attempt}`) : null,
    state && state !== "SUCCESS" ? badge(isFailed ? "error" : "state", state) : isFailed ? badge("error", "ERROR") : null,
    wait?.live ? badge(wait.state, STATUS_WORDS[wait.state]) : null,
    wait?.skewed ? badge("broken", wait.skew_ms ? `clocks differ by ${duration(wait.skew_ms)}` : "clocks differ", "The clocks of producer and worker differ") : null,
    missing ? badge("broken", "parent missing", missing) : null,
    link ? h("a", { class: "other-trace", href: `/trace/${link.trace_id}/${link.span_id}`, "data-link": "", tabindex: "-1" }, `${link.relation === "picked up by" ? "picked up by →" : "sent by ←"} ${link.name} (${link.service})`) : null,
  ];
}

const clip = (percent) => Math.max(0, Math.min(100, percent));

/** The right cell: the bar, its share of the critical path, log records and the duration. */
function timeCell(row) {
  const bar = barOf(row);
  const lasted = h("span", { class: "lasted" });
  const logs = (row.logs ?? []).slice(0, MOST_TICKS);
  const ticks = logs.map((log) => h("i", { class: `log-tick ${log.severity}`, title: log.text }));
  const path = row.critical.map(() => h("i", { class: "on-path" }));
  const element = h("div", { class: "time", role: "gridcell" }, bar, path, ticks, lasted);

  function place(row, percent, axisWidth) {
    const isOut = percent(row.end_ms) < 0 || percent(row.start_ms) > 100;
    const stretch = (mark, from, to) => {
      const [left, right] = [clip(percent(from)), clip(percent(to))];
      mark.style.setProperty("left", `${left}%`);
      mark.style.setProperty("width", `${right - left}%`);
      return right - left;
    };
    const width = stretch(bar, row.start_ms, row.end_ms);
    bar.classList.toggle("out", isOut);
    if (row.wait) fillWait(bar, row.wait, (axisWidth * width) / 100);
    path.forEach((mark, index) => stretch(mark, ...row.critical[index]));
    ticks.forEach((mark, index) => {
      const left = percent(logs[index].ms);
      mark.style.setProperty("left", `${clip(left)}%`);
      mark.hidden = left < 0 || left > 100;
    });
    const length = duration(row.end_ms - row.start_ms);
    setText(lasted, length);
    lasted.classList.toggle("out", isOut);
    lasted.style.setProperty("left", `calc(${clip(percent(row.end_ms))}% + 6px)`);
    element.setAttribute("aria-label", `${length}, from ${duration(row.start_ms)}${logs.length ? `, ${counted(row.logs.length, "log record")}` : ""}`);
  }
  return { element, place };
}

function barOf(row) {
  if (row.kind === "attempts") return h("i", { class: "bar attempts" });
  if (!row.wait) return h("i", { class: `bar ${colorOf(row.service_index)} ${row.status}` });
  return h("span", { class: `bar wait ${row.wait.live ? "live" : ""} ${row.wait.estimated ? "estimated" : ""}` }, WAITS.map(([name]) => h("i", { class: name })));
}

const phasesOf = (wait) => WAITS.map(([name]) => wait[`${name}_ms`] || 0);

function fillWait(bar, wait, width) {
  const phases = phasesOf(wait);
  const sum = phases.reduce((total, ms) => total + ms, 0) || 1;
  phases.forEach((ms, at) => {
    const part = bar.children[at];
    const [, word, meaning] = WAITS[at];
    part.hidden = ms <= 0;
    part.style.setProperty("width", `${(100 * ms) / sum}%`);
    part.title = `${word} ${duration(ms)}: ${meaning}`;
    part.textContent = (width * ms) / sum > LETTER * word.length ? word : "";
  });
}

function waitLabel(wait) {
  const [scheduled, queued, prefetched] = phasesOf(wait);
  const where = wait.queue ? `in ${wait.queue}` : "in the queue";
  const waited = duration(queued + prefetched);
  if (wait.live) return liveLabel(wait, waited, where);
  const parts = [prefetched >= SHORTEST ? `prefetched ${tick(prefetched)}` : "", scheduled >= SHORTEST ? `scheduled ${tick(scheduled)} before` : "", wait.estimated ? "by the clocks" : ""].filter(Boolean);
  return `waited ${waited} ${where}${parts.length ? ` (${parts.join(", ")})` : ""}`;
}

function liveLabel({ state, due_ns: due, knows }, waited, where) {
  const left = Number(BigInt(due) / 1_000_000n) - Date.now();
  return {
    scheduled: `scheduled ${where}, due in ${duration(Math.max(0, left))} (${clock(due)})`,
    waiting: `waiting ${waited} ${where}${knows ? "" : ", no known consumer"}`,
    overdue: `overdue by ${waited} ${where}`,
    stuck: `stuck for ${waited} ${where}`,
    expired: `expired after ${waited} ${where}`,
  }[state];
}
