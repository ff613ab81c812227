// One row of the list of traces.

import { h, prose, setText, shortened } from "./dom.js";
import { clockOf, count, duration } from "./format.js";
import { badges } from "./status.js";

const MOST_SERVICES = 4;
// Milliseconds until a row is read again in which a message waits.
const AGAIN = 10_000;
// The kinds of parts of the critical path, by the color that they share in the bar.
const SHARES = [["work", ["client", "web", "worker"]], ["scheduled", ["scheduled"]], ["queue", ["waiting"]], ["gap", ["gap"]]];

export const COLUMNS = [["Start"], ["Trace"], ["Duration", "number"], ["Longest wait", "number"], ["Spans", "number"], ["Status"]];

/** Make the row of `trace`. `update` shows another state of the trace in the same element, `current` returns the one that is shown, and `changes` in how many milliseconds to read it again. */
export function traceRow(trace) {
  const cells = COLUMNS.map(([, kind], at) => (at === 1 ? h("th", { role: "rowheader", scope: "row" }) : h("td", { role: "cell", class: kind })));
  const [start, name, lasted, waited, spans, status] = cells;
  const [link, where, sentence] = [h("a", { "data-link": "" }), h("span", { class: "where" }), h("span", { class: "sentence" })];
  name.append(link, " ", where, " ", sentence);
  const element = h("tr", { role: "row", "data-trace": trace.trace_id }, cells);
  let shown = "";
  let current = trace;
  let since = Date.now();

  function update(fresh) {
    current = fresh;
    since = Date.now();
    const text = JSON.stringify({ ...fresh, changes_in_ms: null });
    if (text === shown) return;
    shown = text;
    element.className = `is-${fresh.status}`;
    link.href = `/trace/${fresh.trace_id}`;
    setText(link, fresh.name);
    setText(where, services(fresh.services));
    where.title = fresh.services.join(" → ");
    sentence.replaceChildren(...prose(fresh.sentence));
    start.replaceChildren(clockOf(fresh.start_ns));
    lasted.replaceChildren(h("span", {}, duration(fresh.duration_ms)), shares(fresh.parts ?? {}));
    waited.replaceChildren(...waits(fresh));
    waited.classList.toggle("none", !hasWaits(fresh));
    setText(spans, count(fresh.spans));
    status.replaceChildren(...badges(fresh));
  }

  function changes() {
    if (!Object.keys(current.live ?? {}).length) return Infinity;
    return current.changes_in_ms === null ? AGAIN : current.changes_in_ms - (Date.now() - since);
  }

  update(trace);
  return { element, update, current: () => current, changes };
}

const hasWaits = (trace) => trace.queues.length > 0 || trace.wait_ms > 0;

/** The longest wait of a message. Below it the sum of all waits if that is longer, and the scheduled time. */
function waits(trace) {
  if (!hasWaits(trace)) return ["–"];
  const aside = (text, title) => h("span", { class: "aside", title }, text);
  return [
    h("span", {}, duration(trace.wait_ms)),
    trace.wait_sum_ms > trace.wait_ms * 1.01 ? aside(`${duration(trace.wait_sum_ms)} in total`, "The waits of all messages, added up") : "",
    trace.scheduled_ms >= 1 ? aside(`${duration(trace.scheduled_ms)} scheduled`, "The longest time until a message was due, by its countdown or eta") : "",
  ];
}

/** A bar of the kinds of parts of the critical path. */
function shares(parts) {
  const lengths = SHARES.map(([name, kinds]) => [name, kinds.reduce((sum, kind) => sum + (parts[kind] ?? 0), 0)]);
  return h("span", { class: "share", "aria-hidden": "true" }, lengths.filter(([, ms]) => ms).map(([name, ms]) => h("i", { class: name, style: { "flex-grow": String(ms) } })));
}

function services(names) {
  const rest = names.length - MOST_SERVICES;
  return names.slice(0, MOST_SERVICES).map(shortened).join(" → ") + (rest > 0 ? ` → ${rest} more` : "");
}
