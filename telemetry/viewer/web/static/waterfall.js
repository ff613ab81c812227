// The rows of a trace against time. Only those in sight are elements, however many there are.

import { arrowsOf } from "./arrows.js";
import { colorOf } from "./colors.js";
import { h, s } from "./dom.js";
import { clock, duration, tick, ticks } from "./format.js";
import { minimap } from "./minimap.js";
import { STATUS_WORDS } from "./status.js";

// Pixels to a row; on a phone its bar is below its name.
const NARROW = matchMedia("(max-width: 34rem)");
const rowHeight = () => (NARROW.matches ? 52 : 30);
const BEYOND = 10;
// Log records of one row that are drawn.
const MOST_TICKS = 100;
const LABEL = 60;
// Pixels of a letter in a bar.
const LETTER = 7;
const SMALLEST = 0.001;
const WAITS = [["scheduled", "scheduled"], ["queue", "in the queue"], ["prefetch", "for a free process"]];
// Milliseconds without a key until attributes are searched, which the server does.
const PAUSE = 150;

// What of a row changes in place, in the same element.
const CHANGING = new Set(["start_ms", "end_ms", "self_ms", "waited_ms", "scheduled_ms", "queue_ms", "prefetch_ms"]);
const formOf = (row) => JSON.stringify(row, (key, value) => (CHANGING.has(key) ? null : key === "critical" ? value.length : value));

/**
 * Draw `trace`; return the element, and what may be done with it. `kept` is what `state` gave, and
 * `search(text)` finds the ids of the spans that have it in an attribute.
 */
export function waterfall(trace, { chosen, open, moved, kept, changed, search }) {
  let rows = [];
  let shown = [];
  let places = new Map();
  let active = 0;
  let found = false;
  let matches = [];
  let wanted = "";
  let axisWidth = 0;
  let asked = "";
  let inAttributes = new Set();
  let timer = null;
  let zoom = kept?.zoom ?? null;
  const drawn = new Map();
  const closed = new Set(kept?.closed ?? trace.rows.filter((row) => row.kind === "attempts").map((row) => row.id));
  const seen = new Set(trace.rows.map((row) => row.id));
  const axis = h("div", { class: "axis", "aria-hidden": "true" });
  const canvas = h("div", { class: "canvas", role: "presentation" });
  const arrows = s("svg", { class: "arrows", "aria-hidden": "true" });
  const scroller = h("div", {
    class: "rows",
    role: "treegrid",
    tabindex: "0",
    "aria-label": "Spans and waits of the trace",
    "aria-readonly": "true",
    "aria-colcount": "2",
    onscroll: () => {
      draw();
      changed();
    },
    onkeydown: (event) => press(event),
    onclick: (event) => click(event),
  }, arrows, canvas);
  const field = h("input", { type: "search", "data-search": true, "aria-label": "Search spans", placeholder: "Search names and attributes", autocomplete: "off", spellcheck: "false", value: kept?.wanted ?? "", oninput: () => look(field.value), onkeydown: (event) => event.key === "Enter" && (event.preventDefault(), step(event.shiftKey ? -1 : 1)) });
  const tally = h("span", { class: "tally", role: "status" });
  const previous = h("button", { type: "button", "aria-label": "Previous match", title: "Previous match (N)", onclick: () => step(-1) }, "↑");
  const following = h("button", { type: "button", "aria-label": "Next match", title: "Next match (n)", onclick: () => step(1) }, "↓");
  const closer = h("button", { type: "button", "aria-label": "Zoom in", title: "Zoom in (+)", onclick: () => scale(0.5) }, "+");
  const farther = h("button", { type: "button", "aria-label": "Zoom out", title: "Zoom out (-)", onclick: () => scale(2) }, "−");
  const all = h("button", { type: "button", title: "The whole trace (0)", onclick: () => show(null) }, "Reset zoom");
  const tools = h("div", { class: "tools" }, h("div", { class: "find" }, field, previous, following, tally), h("div", { class: "zoom", role: "group", "aria-label": "Zoom" }, farther, closer, all));
  const overview = minimap((from, to) => show(from === null ? null : [from, to]));
  const element = h("section", { class: "waterfall", "aria-label": "Timeline" }, tools, overview.element, h("div", { class: "columns", "aria-hidden": "true" }, h("span", {}, "Span"), axis), scroller);
  const watched = new ResizeObserver(() => draw(true));
  watched.observe(scroller);
  const relayout = () => {
    layout();
    draw(true);
  };
  NARROW.addEventListener("change", relayout);

  function take(fresh) {
    const at = shown[active]?.id;
    if (fresh.spans !== trace.spans) asked = "";
    trace = fresh;
    rows = trace.rows;
    places = new Map(rows.map((row, index) => [row.id, index]));
    for (const row of rows) {
      if (row.kind === "attempts" && !seen.has(row.id)) closed.add(row.id);
      seen.add(row.id);
    }
    layout();
    if (chosen && !found) reveal(chosen);
    const wantedRow = chosen && !found ? chosen : at;
    const again = wantedRow ? shown.findIndex((row) => row.id === wantedRow) : -1;
    if (again >= 0) active = again;
    found ||= !chosen || again >= 0;
    look(field.value, false);
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
    canvas.style.setProperty("height", `${shown.length * rowHeight()}px`);
    scroller.setAttribute("aria-rowcount", shown.length);
  }

  // Open everything that a row is in.
  function reveal(id) {
    let at = places.get(id);
    let opened = false;
    while (at !== undefined && rows[at].parent !== null) {
      at = places.get(rows[at].parent);
      if (at !== undefined) opened = closed.delete(rows[at].id) || opened;
    }
    if (opened) layout();
  }

  const whole = () => {
    const first = Math.min(0, ...rows.slice(0, 1).map((row) => row.start_ms));
    return [first, first + Math.max(SMALLEST, trace.duration_ms - first)];
  };

  let last = "";
  function draw(anew = false) {
    const from = Math.max(0, Math.floor(scroller.scrollTop / rowHeight()) - BEYOND);
    const to = Math.min(shown.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / rowHeight()) + BEYOND);
    const key = `${from} ${to}`;
    if (!anew && key === last) return;
    last = key;
    // Asked before anything changes: it costs no layout.
    axisWidth = axis.clientWidth;
    const room = Math.max(1, Math.min(5, Math.floor(axisWidth / LABEL)));
    const [begin, end] = zoom ?? whole();
    const percent = (ms) => (100 * (ms - begin)) / (end - begin);
    const needed = Array.from({ length: to - from }, (_, at) => from + at);
    if ((active < from || active >= to) && shown[active]) needed.push(active);
    const stay = new Set();
    for (const at of needed) {
      const row = shown[at];
      const form = formOf(row);
      let known = drawn.get(row.id);
      if (known?.form !== form) {
        known?.element.remove();
        known = { form, ...line(row) };
        drawn.set(row.id, known);
        canvas.append(known.element);
      }
      known.place(row, at, percent);
      stay.add(row.id);
    }
    for (const [id, { element: gone }] of drawn) {
      if (stay.has(id)) continue;
      gone.remove();
      drawn.delete(id);
    }
    axis.replaceChildren(...ticks(end - begin, room).map((ms) => h("span", { style: { left: `${percent(ms + begin)}%` } }, tick(ms + begin))));
    scroller.setAttribute("aria-activedescendant", shown[active] ? domId(shown[active]) : "");
    arrowsOf(arrows, { canvas, shown, links: trace.links, from, to, percent, height: rowHeight(), middle: NARROW.matches ? 38 : 15 });
    overview.draw(rows, whole(), zoom);
    all.disabled = !zoom;
  }

  /** Make the element of a row; `place` puts a row of the same form where it is now. */
  function line(row) {
    const wait = row.wait;
    const label = h("span", { class: "label" });
    const fold = h("span", { class: "fold", "aria-hidden": "true" });
    const lasted = h("span", { class: "lasted" });
    const bar = row.kind === "attempts" ? h("i", { class: "bar attempts" }) : wait ? waitBar(row) : h("i", { class: `bar ${colorOf(row.service_index)} ${row.status}` });
    const logs = (row.logs ?? []).slice(0, MOST_TICKS);
    const records = logs.map((log) => h("i", { class: `log-tick ${log.severity}`, title: log.text }));
    const path = row.critical.map(() => h("i", { class: "on-path" }));
    const marks = [
      row.attempt ? h("span", { class: "badge" }, `attempt ${row.attempt}`) : null,
      row.state && row.state !== "SUCCESS" ? h("span", { class: `badge ${row.status === "error" ? "error" : "state"}` }, row.state) : row.status === "error" ? h("span", { class: "badge error" }, "ERROR") : null,
      wait?.live ? h("span", { class: `badge ${wait.state}` }, STATUS_WORDS[wait.state]) : null,
      wait?.skewed ? h("span", { class: "badge broken", title: "the clocks of producer and worker disagree" }, wait.skew_ms ? `clocks differ by ${duration(wait.skew_ms)}` : "clocks differ") : null,
      row.missing_parent ? h("span", { class: "badge broken", title: row.missing_parent }, "parent missing") : null,
      row.link ? h("a", { class: "other-trace", href: `/trace/${row.link.trace_id}/${row.link.span_id}`, "data-link": "", tabindex: "-1" }, linkText(row.link)) : null,
    ];
    const name = h("div", { class: "name", role: "gridcell", style: { "padding-left": `${Math.min(row.depth, 24) * 14 + 2}px` } }, fold, wait ? h("i", { class: "hourglass queue", "aria-hidden": "true" }) : row.kind === "span" ? h("i", { class: `service ${colorOf(row.service_index)}`, "aria-hidden": "true" }) : null, label, wait || row.kind !== "span" ? null : h("span", { class: "who" }, row.service), marks);
    const time = h("div", { class: "time", role: "gridcell" }, bar, path, records, lasted);
    const element = h("div", { id: domId(row), role: "row", "aria-level": row.depth + 1, style: {} }, name, time);

    function place(row, at, percent) {
      const end = row.end_ms;
      const text = wait ? waitLabel(row) : row.name;
      const [left, right] = [clip(percent(row.start_ms)), clip(percent(end))];
      const out = percent(end) < 0 || percent(row.start_ms) > 100;
      element.className = `row ${row.kind} ${at === active ? "active" : ""} ${row.status} ${matches.includes(row.id) ? "match" : ""}`;
      element.style.setProperty("top", `${at * rowHeight()}px`);
      element.dataset.at = at;
      element.setAttribute("aria-rowindex", at + 1);
      element.setAttribute("aria-selected", String(at === active));
      if (row.has_children) {
        element.setAttribute("aria-expanded", String(!closed.has(row.id)));
        fold.textContent = closed.has(row.id) ? "▸" : "▾";
      }
      if (label.textContent !== text) {
        label.textContent = text;
        name.title = [text, row.message, row.missing_parent].filter(Boolean).join("\n");
      }
      bar.style.setProperty("left", `${left}%`);
      bar.style.setProperty("width", `${right - left}%`);
      bar.classList.toggle("out", out);
      if (wait) fillWait(bar, row, right - left);
      path.forEach((mark, index) => {
        const [from, to] = row.critical[index];
        mark.style.setProperty("left", `${clip(percent(from))}%`);
        mark.style.setProperty("width", `${clip(percent(to)) - clip(percent(from))}%`);
      });
      records.forEach((mark, index) => {
        const left = percent(logs[index].ms);
        mark.style.setProperty("left", `${clip(left)}%`);
        mark.hidden = left < 0 || left > 100;
      });
      const length = duration(end - row.start_ms);
      if (lasted.textContent !== length) lasted.textContent = length;
      lasted.classList.toggle("out", out);
      lasted.style.setProperty("left", `calc(${right}% + 6px)`);
      time.setAttribute("aria-label", `${length}, from ${duration(row.start_ms)}${counted(row.logs)}`);
    }
    return { element, place };
  }

  const counted = (logs) => (logs?.length ? `, ${logs.length} ${logs.length === 1 ? "log record" : "log records"}` : "");

  const clip = (percent) => Math.max(0, Math.min(100, percent));

  function waitBar(row) {
    return h("span", { class: `bar wait ${row.wait.live ? "live" : ""} ${row.wait.estimated ? "estimated" : ""}` }, WAITS.map(([name]) => h("i", { class: name })));
  }

  const phases = (row) => WAITS.map(([name]) => row.wait[`${name}_ms`] || 0);

  function fillWait(bar, row, width) {
    const parts = phases(row);
    const sum = parts.reduce((total, ms) => total + ms, 0) || 1;
    parts.forEach((ms, at) => {
      const part = bar.children[at];
      const word = WAITS[at][1];
      part.hidden = ms <= 0;
      part.style.setProperty("width", `${(100 * ms) / sum}%`);
      part.title = `${word}: ${duration(ms)}`;
      part.textContent = (axisWidth * width * ms) / sum / 100 > LETTER * word.length ? word : "";
    });
  }

  function waitLabel(row) {
    const wait = row.wait;
    const [scheduled, queued, prefetched] = phases(row);
    const where = wait.queue ? `in ${wait.queue}` : "in the queue";
    const waited = queued + prefetched;
    if (wait.live) {
      const toGo = Number(BigInt(wait.due_ns) / 1000000n) - Date.now();
      const long = duration(waited);
      return {
        scheduled: `scheduled until ${clock(wait.due_ns)}, ${duration(Math.max(0, toGo))} to go`,
        waiting: `waiting ${long} ${where}${wait.knows ? "" : ", no consumer known"}`,
        overdue: `overdue by ${long} ${where}`,
        stuck: `stuck for ${long} ${where}`,
        expired: `expired after ${long} ${where}`,
      }[wait.state];
    }
    const said = [`waited ${duration(waited)} ${where}`];
    if (prefetched >= 0.05 && queued >= 0.05) said.push(`of it ${duration(prefetched)} for a free process`);
    else if (prefetched >= 0.05) said[0] = `waited ${duration(waited)} for a free process`;
    if (scheduled >= 0.05) said.push(`after ${duration(scheduled)} scheduled`);
    return `${said.join(", ")}${wait.estimated ? ", by the clocks" : ""}`;
  }

  const linkText = (link) => (link.relation === "picked up by" ? `picked up by → ${link.name} (${link.service})` : `sent by ← ${link.name} (${link.service})`);

  // Finding

  function look(text, jump = true) {
    wanted = text.trim().toLowerCase();
    if (wanted !== asked) {
      clearTimeout(timer);
      inAttributes = new Set();
      timer = wanted ? setTimeout(ask, PAUSE, wanted, jump) : null;
      asked = wanted;
    }
    mark(jump);
  }

  async function ask(text, jump) {
    const ids = await search(text);
    if (text !== wanted) return;
    inAttributes = new Set(ids);
    mark(jump);
  }

  function mark(jump) {
    const holds = (row) => inAttributes.has(row.id) || [row.name, row.service, row.state, row.message, row.span_kind, row.id, row.wait?.queue, row.wait?.state].some((value) => value && String(value).toLowerCase().includes(wanted));
    matches = wanted ? rows.filter(holds).map((row) => row.id) : [];
    const at = matches.indexOf(shown[active]?.id);
    if (jump && matches.length && at < 0) step(1);
    else tell();
    draw(true);
    if (jump) changed();
  }

  function tell() {
    const at = matches.indexOf(shown[active]?.id);
    tally.textContent = !wanted ? "" : matches.length ? `${at < 0 ? "–" : at + 1} of ${matches.length}` : "No spans match";
    previous.disabled = following.disabled = !matches.length;
  }

  function step(by) {
    if (!matches.length) return tell();
    const here = places.get(shown[active]?.id) ?? -1;
    const order = matches.map((id) => places.get(id));
    let next = by > 0 ? order.findIndex((at) => at > here) : order.findLastIndex((at) => at < here);
    if (next < 0) next = by > 0 ? 0 : order.length - 1;
    goTo(matches[next]);
    tell();
  }

  /** Go to a row, opening what it is in. */
  function goTo(id) {
    reveal(id);
    const at = shown.findIndex((row) => row.id === id);
    if (at >= 0) move(at);
  }

  // Zoom

  function show(range) {
    const [begin, end] = whole();
    zoom = range && range[1] - range[0] < (end - begin) * 0.999 ? [Math.max(begin, range[0]), Math.min(end, range[1])] : null;
    if (zoom && zoom[1] - zoom[0] < SMALLEST) zoom = null;
    draw(true);
    changed();
  }

  function scale(by) {
    const [begin, end] = zoom ?? whole();
    const row = shown[active];
    const middle = row && by < 1 ? (row.start_ms + row.end_ms) / 2 : (begin + end) / 2;
    const [first, last_] = whole();
    const length = Math.min(last_ - first, (end - begin) * by);
    const from = Math.max(first, Math.min(last_ - length, middle - length / 2));
    show([from, from + length]);
  }

  function pan(by) {
    if (!zoom) return;
    const [begin, end] = whole();
    const length = zoom[1] - zoom[0];
    const from = Math.max(begin, Math.min(end - length, zoom[0] + by * length));
    show([from, from + length]);
  }

  // Moving

  function move(to, inWindow = true) {
    const before = shown[active]?.id;
    active = Math.max(0, Math.min(shown.length - 1, to));
    const top = active * rowHeight();
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + rowHeight() > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + rowHeight() - scroller.clientHeight;
    draw(true);
    // The rows themselves may reach below the window.
    if (inWindow) drawn.get(shown[active]?.id)?.element.scrollIntoView({ block: "nearest" });
    tell();
    if (shown[active] && shown[active].id !== before) moved(shown[active].open);
  }

  function fold(row, close) {
    if (!row?.has_children) return;
    closed[close ? "add" : "delete"](row.id);
    layout();
    draw(true);
    changed();
  }

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const row = shown[active];
    const page = Math.max(1, Math.floor(scroller.clientHeight / rowHeight()) - 1);
    const does = {
      ArrowDown: () => move(active + 1),
      ArrowUp: () => move(active - 1),
      PageDown: () => move(active + page),
      PageUp: () => move(active - page),
      Home: () => move(0),
      End: () => move(shown.length - 1),
      ArrowRight: () => (event.shiftKey ? pan(0.25) : closed.has(row.id) ? fold(row, false) : row.has_children && move(active + 1)),
      ArrowLeft: () => (event.shiftKey ? pan(-0.25) : row.has_children && !closed.has(row.id) ? fold(row, true) : row.parent !== null && move(shown.findIndex((it) => it.id === row.parent))),
      Enter: () => open(row.open),
      " ": () => open(row.open),
    }[event.key];
    if (!does || !row) return;
    event.preventDefault();
    event.stopPropagation();
    does();
  }

  function click(event) {
    const line_ = event.target.closest(".row");
    if (!line_ || event.target.closest("a") || !getSelection().isCollapsed) return;
    active = Number(line_.dataset.at);
    const row = shown[active];
    if (event.target.closest(".fold") && row.has_children) return fold(row, !closed.has(row.id));
    draw(true);
    tell();
    open(row.open);
  }

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
      if (kept?.top) scroller.scrollTop = kept.top;
      else move(active, false); // The page begins at its top.
      kept = null;
    },
    goTo,
    toggleAll() {
      const close = !closed.size;
      closed.clear();
      if (close) for (const row of rows) if (row.has_children && row.depth > 0) closed.add(row.id);
      layout();
      draw(true);
      changed();
    },
    next: () => step(1),
    previous: () => step(-1),
    zoomIn: () => scale(0.5),
    zoomOut: () => scale(2),
    zoomReset: () => show(null),
    state: () => ({ closed: [...closed], zoom, wanted: field.value, top: scroller.scrollTop }),
    traceparent(use, id) {
      const span = rows.find((row) => row.id === shown[active]?.open);
      if (span) use(`00-${id}-${span.id}-${span.flags.toString(16).padStart(2, "0")}`);
    },
    close() {
      clearTimeout(timer);
      watched.disconnect();
      NARROW.removeEventListener("change", relayout);
    },
  };
}
