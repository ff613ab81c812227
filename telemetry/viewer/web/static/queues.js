// The queues: what stalls, how much waits and for how long, what goes in and out, and what fails.

import { sparkline } from "./chart.js";
import { breakable, h, nothing } from "./dom.js";
import { count, duration, rate } from "./format.js";
import { polling } from "./polling.js";
import { range } from "./range.js";

/** Show the queues in `view`. */
export function showQueues(view) {
  document.title = "Queues · queuehop";
  const place = h("div");
  const chosen = range("/queues", () => page.refresh());
  view.append(h("div", { class: "page-head" }, h("h1", {}, "Queues"), chosen.element), place);
  const page = polling(place, {
    address: () => `/api/queues?since_s=${chosen.value()}`,
    seconds: 5,
    show: (answer) => (answer.queues.length ? [headline(answer.queues), table(answer)] : [nothing("No messages in this time range", "Choose a longer one, or wait: the page updates by itself.")]),
  });
  return page;
}

/** The address of a queue's page, or of a task's in it. */
export function pageOf(queue, broker, since, task) {
  const asked = new URLSearchParams({ queue });
  if (broker) asked.set("broker", broker);
  if (task !== undefined) asked.set("task", task);
  if (since) asked.set("since_s", since);
  return `/queue?${asked}`;
}

/** The address of the traces that a number counts. */
export function tracesOf(facts) {
  return `/?${new URLSearchParams(Object.entries(facts).filter(([, value]) => value))}`;
}

/** A number that leads to its traces; 0 is plain. */
export function linked(number, facts, { key, kind = "" } = {}) {
  if (!number) return h("span", { class: "none" }, "0");
  return h("a", { href: tracesOf(facts), "data-link": "", "data-key": key, class: kind }, count(number));
}

const STATES = { stalled: "Stalled", growing: "Growing", waiting: "Waiting", ok: "OK" };
const MEANINGS = { stalled: "Messages are stuck and no worker takes any", growing: "More messages come in than are taken", waiting: "Messages wait to be taken", ok: "Nothing waits" };

export function badge(state) {
  const kind = { stalled: "error", growing: "waiting", waiting: "", ok: "ok" }[state];
  return h("span", { class: `badge ${kind}`, title: MEANINGS[state] }, STATES[state]);
}

/** Words for a message's broker, where one needs to know it. */
export function brokerName(broker) {
  return broker.replace(/^[a-z0-9_]+:\/\//, "");
}

function headline(queues) {
  const of = (state) => queues.filter((queue) => queue.state === state).length;
  const depth = queues.reduce((sum, queue) => sum + queue.depth, 0);
  const oldest = Math.max(0, ...queues.map((queue) => queue.oldest_ms ?? 0));
  const parts = [
    of("stalled") ? h("strong", { class: "bad" }, `${of("stalled")} stalled`) : null,
    of("growing") ? h("strong", { class: "late" }, `${of("growing")} growing`) : null,
    depth ? `${count(depth)} ${depth === 1 ? "message waits" : "messages wait"}, the oldest for ${duration(oldest)}` : "Nothing waits",
    `${count(queues.length)} ${queues.length === 1 ? "queue" : "queues"}`,
  ].filter(Boolean);
  return h("p", { class: "headline", "data-key": "headline" }, parts.map((part, at) => [at ? " · " : "", part]));
}

const COLUMNS = [["Queue"], ["State"], ["Depth", "number"], ["Oldest", "number"], ["In / out", "number"], ["Wait", "number"], ["Run", "number"], ["Failed", "number"], ["Retried", "number"], ["Exceptions"], ["Expired", "number"], ["Rejected", "number"]];

function table({ queues, since_s: since }) {
  const names = new Map();
  for (const { queue } of queues) names.set(queue, (names.get(queue) || 0) + 1);
  return h(
    "div",
    { class: "scroll sticky-first", tabindex: "0", role: "region", "aria-label": "Queues", "data-key": "queues" },
    h(
      "table",
      { class: "queues" },
      h("caption", { class: "hidden" }, "Queues, those that need somebody first"),
      h("thead", {}, h("tr", {}, COLUMNS.map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))),
      h("tbody", {}, queues.map((queue) => row(queue, since, names.get(queue.queue) > 1))),
    ),
  );
}

function row(queue, since, isAmbiguous) {
  const key = JSON.stringify([queue.broker, queue.queue]);
  const name = queue.queue || "(no queue named)";
  const cell = (label, kind, ...children) => h("td", { class: kind, "data-label": label }, children);
  const of = { queue: queue.queue, broker: queue.broker };
  const during = { ...of, since_s: since };
  return h(
    "tr",
    { "data-key": key, class: `is-${queue.state}` },
    h("th", { scope: "row" }, h("a", { href: pageOf(queue.queue, queue.broker, since), "data-link": "" }, breakable(name)), isAmbiguous && queue.broker ? h("span", { class: "where" }, brokerName(queue.broker)) : "", h("span", { class: "where" }, breakable(tasks(queue.tasks)))),
    cell("State", "", badge(queue.state)),
    cell("Depth", "number", linked(queue.depth, { ...of, status: "waiting" }, { kind: queue.state === "stalled" ? "bad" : "" }), sparkline(queue.series, [{ key: "depth", name: "depth" }], { label: `Depth over time, now ${count(queue.depth)}` }), queue.scheduled ? h("span", { class: "where" }, linked(queue.scheduled, { ...of, status: "scheduled" }), " scheduled") : ""),
    cell("Oldest", "number", queue.oldest_ms === null ? h("span", { class: "none" }, "–") : h("a", { href: tracesOf({ ...of, status: queue.stuck ? "stuck" : "waiting", sort: "wait" }), "data-link": "", class: queue.stuck ? "bad" : "" }, duration(queue.oldest_ms))),
    cell("In / out", "number", h("span", {}, rate(queue.in_per_s), " / ", rate(queue.out_per_s)), sparkline(queue.series, [{ key: "sent", name: "sent" }, { key: "runs", name: "runs" }], { label: `In and out over time: ${count(queue.sent)} in, ${count(queue.runs)} out` })),
    cell("Wait", "number", percentiles(queue.wait_ms, tracesOf({ ...during, sort: "wait" }))),
    cell("Run", "number", percentiles(queue.run_ms, tracesOf({ ...during, sort: "duration" }))),
    cell("Failed", "number", linked(queue.failures, { ...during, status: "error" }, { kind: "bad" })),
    cell("Retried", "number", linked(queue.retries, { ...during, q: "status:retry" })),
    cell("Exceptions", "", h("ul", { class: "exceptions" }, queue.exceptions.slice(0, 3).map(({ type, count: times }) => h("li", { title: type }, breakable(type.split(".").at(-1)), ` ×${count(times)}`)))),
    cell("Expired", "number", linked(queue.expired + queue.expired_waiting, { ...of, status: "expired" })),
    cell("Rejected", "number", linked(queue.rejected, { ...during, q: "status:rejected" })),
  );
}

function tasks(names) {
  const named = names.filter(Boolean);
  const shown = named.slice(0, 3).join(", ");
  return named.length > 3 ? `${shown} and ${named.length - 3} more tasks` : shown;
}

/** Three percentiles, one a line; the highest lead to the slowest traces. */
export function percentiles(values, href) {
  if (values.p50 === null) return h("span", { class: "none" }, "–");
  return h("dl", { class: "percentiles" }, ["p50", "p95", "p99"].map((name) => [h("dt", { class: name }, name), h("dd", { class: name }, name === "p50" ? duration(values[name]) : h("a", { href, "data-link": "" }, duration(values[name])))]));
}
