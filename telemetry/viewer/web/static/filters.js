// The search field and the filters above the list of traces.

import { get } from "./api.js";
import { h } from "./dom.js";
import { everySeconds } from "./polling.js";
import { RANGES } from "./range.js";
import { SearchField } from "./search.js";
import { STATUS_WORDS } from "./status.js";

const FACETS = [["service", "Service", "services"], ["task", "Task", "tasks"], ["queue", "Queue", "queues"], ["route", "Route", "routes"]];
const STATUSES = ["stuck", "waiting", "overdue", "scheduled", "expired", "error", "revoked", "broken", "ok"].map((status) => [status, STATUS_WORDS[status]]);
const SORTS = [["recent", "Most recent"], ["received", "Last received"], ["wait", "Longest wait"], ["duration", "Longest duration"]];
// Filters of links on other pages, which have no field of their own.
const OTHERS = [["broker", "Broker"], ["exception", "Exception"], ["min_ms", "Duration from (ms)"], ["min_wait_ms", "Wait from (ms)"], ["trace_id", "Trace id"]];
// The value of the time range for which the ends have a field each. A field has local time, and the address UTC.
const CUSTOM = "custom";
const ENDS = [["from", "From"], ["to", "To"]];
const [MINUTE, HOUR] = [60_000, 3_600_000];
// Seconds between two readings of the values of the filters.
const AGAIN = 30;
const EXAMPLES = ["status:stuck", "wait>2s", "queue:mail", "duration>500ms", "log:timeout"];

/** Make the filters with the values `given` in the address. `changed(done)` is called after a change; `done` is false while somebody types. */
export function filters(given, changed) {
  const field = new SearchField(given.get("q") ?? "", (_, done) => changed(done));
  const choose = () => {
    showEnds(element);
    changed(true);
  };
  const element = form(field, given, choose, clear);

  function clear() {
    field.clear();
    for (const select of element.querySelectorAll("select")) select.selectedIndex = 0;
    for (const input of element.querySelectorAll(".facets .other input")) input.closest("label").remove();
    choose();
  }

  const read = () => get("/api/facets").then((known) => FACETS.forEach(([name, , key]) => addOptions(element.elements[name], known[key] ?? [])), () => {});
  read();
  const stop = everySeconds(AGAIN, read);

  const parameters = () => {
    const found = new URLSearchParams();
    if (field.value) found.set("q", field.value);
    for (const [name, value] of new FormData(element)) {
      const text = String(value).trim();
      if (!text || text === CUSTOM || (name === "sort" && text === "recent")) continue;
      if (element.elements[name].type !== "datetime-local") found.set(name, name === "trace_id" ? text.toLowerCase() : text);
      else if (isCustom(element)) found.set(name, new Date(text).toISOString());
    }
    return found;
  };
  return {
    element,
    parameters,
    complain: (text, position) => field.complain(text, position),
    close() {
      stop();
      field.close();
    },
    isFiltered: () => [...parameters().keys()].some((name) => name !== "sort"),
  };
}

function form(field, given, changed, clear) {
  const choice = (name, label, options, chosen = given.get(name)) => h("label", {}, label, h("select", { name, onchange: changed }, withGiven(options, chosen).map(([value, text]) => h("option", { value, selected: (chosen ?? "") === value }, text))));
  const others = OTHERS.filter(([name]) => given.get(name)).map(([name, label]) => h("label", { class: "other" }, label, h("input", { name, value: given.get(name), size: 8, onchange: changed })));
  const hasEnd = ENDS.some(([name]) => given.get(name));
  const facets = [
    choice("status", "Status", [["", "Any"], ...STATUSES]),
    FACETS.map(([name, label]) => choice(name, label, [["", "Any"]])),
    others,
    choice("since_s", "Time range", [["", "Any time"], ...RANGES, [CUSTOM, "Custom"]], hasEnd ? CUSTOM : given.get("since_s")),
    ENDS.map(([name, label]) => h("label", { class: "end", hidden: !hasEnd }, label, h("input", { type: "datetime-local", name, value: localTime(given.get(name)), onchange: changed }))),
    choice("sort", "Sort by", SORTS),
    h("button", { type: "button", class: "clear", onclick: clear }, "Clear"),
  ];
  return h("form", { class: "filters", role: "search", "aria-label": "Traces", onsubmit: (event) => event.preventDefault() }, field.element, h("div", { class: "facets" }, facets));
}

const isCustom = (form) => form.elements.since_s.value === CUSTOM;

/** Show the ends of the time range if it has any. At first, they are those of the last hour, with the minute that has begun. */
function showEnds(form) {
  const inputs = ENDS.map(([name]) => form.elements[name]);
  for (const input of inputs) input.closest("label").hidden = !isCustom(form);
  if (!isCustom(form) || inputs.some((input) => input.value)) return;
  inputs.forEach((input, at) => (input.value = localTime(new Date(Date.now() + MINUTE - (1 - at) * HOUR))));
}

/** A time as a field has it: local, to the minute. */
function localTime(time) {
  const date = new Date(time ?? NaN);
  return isNaN(date) ? "" : new Date(date - date.getTimezoneOffset() * MINUTE).toISOString().slice(0, 16);
}

function withGiven(options, given) {
  return given && !options.some(([value]) => value === given) ? [...options, [given, given]] : options;
}

/** Add the values that are new, all in their order. */
function addOptions(select, values) {
  const known = new Map([...select.options].map((option) => [option.value, option]));
  if (values.every((value) => known.has(value))) return;
  for (const value of values) select.append(known.get(value) ?? h("option", { value }, value));
}

/** Example searches, as links. */
export function examples() {
  return h("p", { class: "examples" }, "Examples: ", EXAMPLES.map((text, at) => [at ? ", " : "", h("a", { href: `/?${new URLSearchParams({ q: text })}`, "data-link": "" }, h("code", {}, text))]));
}
