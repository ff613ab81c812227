// The page of all queues: which stall, how many messages wait, their rates, times and failures.

import { sparkline } from "./chart.js";
import { breakable, entitle, h, nothing } from "./dom.js";
import { count, counted, duration, ratesTogether } from "./format.js";
import { polling } from "./polling.js";
import { range } from "./range.js";

const MOST_EXCEPTIONS = 3;
const MOST_TASKS = 3;
// Queues that the first line names for each problem.
const MOST_NAMED = 3;
// Queues that are shown at first: the most urgent. Thousands would keep the browser busy.
const MOST_QUEUES = 200;

/** Show the queues in `view`. */
export function showQueues(view) {
  entitle("Queues");
  const place = h("div");
  const chosen = range("/queues", () => page.refresh());
  let most = MOST_QUEUES;
  const showAll = () => {
    most = Infinity;
    page.refresh();
  };
  view.append(h("div", { class: "page-head" }, h("h1", {}, "Queues"), chosen.element, estimates()), place);
  const page = polling(place, {
    address: () => `/api/queues?since_s=${chosen.value()}`,
    seconds: 5,
    show: (answer) => (answer.queues.length ? [headline(answer), table(answer, most), rest(answer.queues, most, showAll)] : [nothing("No messages in this time range", "Choose a longer time range, or wait. The page updates itself.")]),
  });
  return page;
}

/** The error of the percentiles: they are those of the bins of a histogram. */
export function estimates() {
  return h("span", { class: "where", title: "Percentiles are estimated from a histogram" }, "Percentiles ±2.2 %");
}

// Sections of the page of a queue, which its numbers link to.
export const [OLDEST, WAITS, RUNS] = ["oldest-messages", "longest-waits", "longest-runs"];

/** The address of the page of a queue, or of a task in it. */
export function pageOf(queue, broker, since, task) {
  const asked = new URLSearchParams({ queue });
  if (broker !== null) asked.set("broker", broker);
  if (task !== undefined) asked.set("task", task);
  if (since) asked.set("since_s", since);
  return `/queue?${asked}`;
}

/** The address of the traces that a number counts. An empty name stands for messages without one, and null for all. */
export function tracesOf({ q, ...facts }) {
  const asked = new URLSearchParams(Object.entries(facts).filter(([, value]) => value));
  const nameless = Object.keys(facts).filter((name) => facts[name] === "");
  const terms = [...nameless.map((name) => `${name}:""`), q].filter(Boolean);
  if (terms.length) asked.set("q", terms.join(" "));
  return `/?${asked}`;
}

/** A number with a link to the traces that it counts; 0 has no link. */
export function linked(number, facts, { key, kind = "" } = {}) {
  if (!number) return h("span", { class: "none" }, "0");
  return h("a", { href: tracesOf(facts), "data-link": "", "data-key": key, class: kind }, count(number));
}

/** Stands for a name that spans do not have. */
export const NO_QUEUE = "(no queue name)";

const STATES = { stalled: "Stalled", growing: "Growing", waiting: "Waiting", ok: "OK" };
const MEANINGS = { stalled: "Messages are stuck, and no worker takes any", growing: "More messages arrive than workers take", waiting: "Messages wait for a worker", ok: "No message waits" };

/** The badge of the state of a queue. */
export function stateBadge(state) {
  const kind = { stalled: "error", growing: "waiting", waiting: "", ok: "ok" }[state];
  return h("span", { class: `badge ${kind}`, title: MEANINGS[state] }, STATES[state]);
}

/** The type of an exception without its module. */
function shortType(type) {
  return type.split(".").findLast(Boolean) ?? type;
}

/** The address of a broker without its scheme. */
export function brokerName(broker) {
  return broker.replace(/^[a-z0-9_]+:\/\//, "");
}

/** What is wrong, and links to the first queues where it is; null if it is in none. */
function named(kind, text, queues, since) {
  if (!queues.length) return null;
  const links = queues.slice(0, MOST_NAMED).map(({ queue, broker }, at) => [at ? ", " : ": ", h("a", { href: pageOf(queue, broker, since), "data-link": "", title: queue }, queue || NO_QUEUE)]);
  return [h("strong", { class: kind }, text), links, queues.length > MOST_NAMED ? ` and ${count(queues.length - MOST_NAMED)} more` : ""];
}

function headline({ queues, since_s: since }) {
  const of = (state) => queues.filter((queue) => queue.state === state);
  const failing = queues.filter((queue) => queue.failures).sort((one, other) => other.failures - one.failures);
  const failures = failing.reduce((sum, queue) => sum + queue.failures, 0);
  const depth = queues.reduce((sum, queue) => sum + queue.depth, 0);
  const unsent = queues.reduce((sum, queue) => sum + queue.unsent, 0);
  const oldest = Math.max(0, ...queues.map((queue) => queue.oldest_ms ?? 0));
  const parts = [
    named("bad", `${of("stalled").length} stalled`, of("stalled"), since),
    named("late", `${of("growing").length} growing`, of("growing"), since),
    named("bad", counted(failures, "run failed", "runs failed"), failing, since),
    unsent ? h("strong", { class: "bad" }, `${counted(unsent, "message")} failed to send`) : null,
    depth ? `${counted(depth, "message waits", "messages wait")}, the oldest for ${duration(oldest)}` : "No message waits",
    counted(queues.length, "queue"),
  ].filter(Boolean);
  return h("p", { class: "headline", "data-key": "headline" }, parts.map((part, at) => [at ? " · " : "", part]));
}

const COLUMNS = [["Queue"], ["State"], ["Depth", "number"], ["Oldest", "number"], ["In / out", "number"], ["Wait", "number"], ["Run", "number"], ["Failed", "number"], ["Retried", "number"], ["Exceptions"], ["Expired", "number"], ["Rejected", "number"]];

/** The button that shows the queues beyond the first `most`. */
function rest(queues, most, showAll) {
  if (queues.length <= most) return "";
  return h("button", { type: "button", class: "more", "data-key": "rest", onclick: showAll }, `Show all ${count(queues.length)} queues`);
}

function table({ queues, since_s: since }, most) {
  const names = new Map();
  for (const { queue } of queues) names.set(queue, (names.get(queue) || 0) + 1);
  return h(
    "div",
    { class: "scroll sticky-first", tabindex: "0", role: "region", "aria-label": "Queues", "data-key": "queues" },
    h(
      "table",
      { class: "queues" },
      h("caption", { class: "hidden" }, "Queues, stalled ones first"),
      h("thead", {}, h("tr", {}, COLUMNS.map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))),
      h("tbody", {}, queues.slice(0, most).map((queue) => row(queue, since, names.get(queue.queue) > 1))),
    ),
  );
}

function row(queue, since, isAmbiguous) {
  const cell = (label, kind, ...children) => h("td", { class: kind, "data-label": label }, children);
  const number = (label, ...children) => cell(label, "number", ...children);
  const of = { queue: queue.queue, broker: queue.broker };
  const during = { ...of, since_s: since };
  const page = pageOf(queue.queue, queue.broker, since);
  return h(
    "tr",
    { "data-key": JSON.stringify([queue.broker, queue.queue]), class: `is-${queue.state}` },
    nameCell(queue, since, isAmbiguous),
    cell("State", "", stateBadge(queue.state)),
    number("Depth", ...depth(queue, of)),
    number("Oldest", oldest(queue, page)),
    number("In / out", ...flow(queue, during)),
    number("Wait", percentiles(queue.wait_ms, `${page}#${WAITS}`)),
    number("Run", percentiles(queue.run_ms, `${page}#${RUNS}`)),
    number("Failed", linked(queue.failures, { ...during, status: "failure" }, { kind: "bad" })),
    number("Retried", linked(queue.retries, { ...during, status: "retry" })),
    cell("Exceptions", "", h("ul", { class: "exceptions" }, queue.exceptions.slice(0, MOST_EXCEPTIONS).map(({ type, count: times }) => h("li", { title: type }, breakable(shortType(type)), " ", h("a", { href: tracesOf({ ...during, exception: type }), "data-link": "" }, `×${count(times)}`))))),
    number("Expired", linked(queue.expired + queue.expired_waiting, { ...during, status: "expired" })),
    number("Rejected", linked(queue.rejected, { ...during, status: "rejected" })),
  );
}

function nameCell(queue, since, isAmbiguous) {
  const link = h("a", { href: pageOf(queue.queue, queue.broker, since), "data-link": "", title: queue.queue }, breakable(queue.queue || NO_QUEUE));
  return h("th", { scope: "row" }, link, isAmbiguous && queue.broker ? h("span", { class: "where" }, brokerName(queue.broker)) : "", h("span", { class: "where" }, breakable(tasks(queue.tasks))));
}

function depth(queue, of) {
  return [
    linked(queue.depth, { ...of, status: "waiting" }, { kind: queue.state === "stalled" ? "bad" : "" }),
    sparkline(queue.series, [{ key: "depth", name: "depth" }], { label: `Depth over time, now ${count(queue.depth)}` }),
    queue.scheduled ? h("span", { class: "where" }, linked(queue.scheduled, { ...of, status: "scheduled" }), " scheduled") : "",
  ];
}

/** The age of the oldest message, with a link to the oldest messages on the page of the queue. */
export function oldest(queue, page = "") {
  if (queue.oldest_ms === null) return h("span", { class: "none" }, "–");
  return h("a", { href: `${page}#${OLDEST}`, "data-link": "", class: queue.stuck ? "bad" : "" }, duration(queue.oldest_ms));
}

function flow(queue, during) {
  return [
    h("span", {}, ratesTogether(queue.in_per_s, queue.out_per_s)),
    queue.unsent ? h("span", { class: "where" }, linked(queue.unsent, { ...during, status: "unsent" }, { kind: "bad" }), " failed to send") : "",
    sparkline(queue.series, [{ key: "sent", name: "sent" }, { key: "runs", name: "runs" }], { label: `In and out over time: ${count(queue.sent)} in, ${count(queue.runs)} out` }),
  ];
}

function tasks(names) {
  const named = names.filter(Boolean);
  const shown = named.slice(0, MOST_TASKS).join(", ");
  return named.length > MOST_TASKS ? `${shown} and ${counted(named.length - MOST_TASKS, "more task")}` : shown;
}

/** Three percentiles, one a line. The upper two link to the longest ones. */
export function percentiles(values, href) {
  if (values.p50 === null) return h("span", { class: "none" }, "–");
  return h("dl", { class: "percentiles" }, ["p50", "p95", "p99"].map((name) => [h("dt", { class: name }, name), h("dd", { class: name }, name === "p50" ? duration(values[name]) : h("a", { href, "data-link": "" }, duration(values[name])))]));
}
