// One queue, or one task in it: who fills it, who empties it, how long messages wait, and what fails.

import { chart } from "./chart.js";
import { breakable, h } from "./dom.js";
import { clock, count, duration, exactly, rate, tick } from "./format.js";
import { update } from "./morph.js";
import { polling } from "./polling.js";
import { badge, brokerName, linked, pageOf, percentiles, tracesOf } from "./queues.js";
import { range } from "./range.js";
import { STATUS_WORDS } from "./status.js";

const PERCENTILES = ["50", "95", "99"];

/** Show the queue that the address names in `view`. */
export function showQueue(view) {
  const given = new URLSearchParams(location.search);
  const queue = given.get("queue") ?? "";
  const [task, broker] = [given.get("task"), given.get("broker")];
  const title = task ?? queue;
  document.title = `${title || "(no queue named)"} · queuehop`;
  const chosen = range("/queue", () => shown.refresh());
  const state = h("span");
  const place = h("div", { class: "queue-page" });
  const trail = [h("a", { href: "/queues", "data-link": "" }, "Queues"), task === null ? null : h("a", { href: pageOf(queue, broker, given.get("since_s")), "data-link": "" }, queue || "(no queue named)")];
  view.append(
    h("nav", { class: "trail", "aria-label": "Breadcrumb" }, h("ol", {}, trail.filter(Boolean).map((link) => h("li", {}, link)))),
    h("div", { class: "page-head" }, h("h1", {}, title || (task === null ? "(no queue named)" : "(no task named)")), state, chosen.element),
    place,
  );
  const shown = polling(place, {
    address() {
      const asked = new URLSearchParams({ queue, since_s: chosen.value() });
      if (task !== null) asked.set("task", task);
      if (broker !== null) asked.set("broker", broker);
      return `/api/queue?${asked}`;
    },
    seconds: 5,
    show(answer) {
      update(state, badge(answer.state));
      return page(answer, broker);
    },
  });
  return shown;
}

function page(it, broker) {
  const inQueue = { queue: it.queue, broker };
  const of = { ...inQueue, task: it.task ?? "" };
  const during = { ...of, since_s: it.since_s };
  const over = { since: it.since_s, now: it.now, bucket: it.bucket_s };
  const brokers = it.brokers.filter(Boolean);
  return [
    h("p", { class: "facts", "data-key": "facts" }, brokers.length ? h("span", {}, `Broker: ${brokers.map(brokerName).join(", ")}`) : "", h("span", {}, it.last_run_ns ? ["Last run ", time(it.last_run_ns)] : "No run in this time range"), h("a", { href: tracesOf(of), "data-link": "" }, "All traces")),
    tiles(it, of, during),
    h(
      "div",
      { class: "charts", "data-key": "charts" },
      chart(it.series, [{ key: "depth", name: "depth", label: "depth" }], { title: "Depth", format: whole, least: 4, ...over }),
      chart(it.series, [{ key: "sent", name: "sent", label: "in" }, { key: "runs", name: "runs", label: "out" }, { key: "failures", name: "p99", label: "failed" }], { title: `In and out per ${bucket(it.bucket_s)}`, format: whole, least: 4, ...over }),
      chart(it.series, PERCENTILES.map((p) => ({ key: `wait_${p}`, name: `p${p}`, label: `p${p}` })), { title: "Wait", format: duration, tick, ...over }),
      chart(it.series, PERCENTILES.map((p) => ({ key: `run_${p}`, name: `p${p}`, label: `p${p}` })), { title: "Run", format: duration, tick, ...over }),
    ),
    scatter(it, over),
    list("Oldest messages", it.oldest, ["Task", "State", "Waits for", "Due", "Trace"], (message) => [breakable(message.task || "–"), h("span", { class: `badge ${message.state}` }, STATUS_WORDS[message.state] ?? message.state), right(message.state === "scheduled" ? "–" : duration(message.waited_ms)), time(message.due_ns), trace(message)], [2]),
    list("Failures", it.exceptions, ["Exception", "Count", "Retried", "Latest message", "Latest trace"], (failure) => [h("code", {}, breakable(failure.type)), right(linked(failure.count, { ...during, q: `exception.type="${failure.type.replaceAll('"', "")}"` })), right(count(failure.retried)), h("span", { class: "words" }, message(failure)), trace(failure)], [1, 2]),
    it.task !== null ? "" : list("Tasks", it.tasks, ["Task", "Depth", "Oldest", "In", "Out", "Wait", "Run", "Failed", "Retried"], (task) => [h("a", { href: pageOf(it.queue, broker, it.since_s, task.task), "data-link": "" }, breakable(task.task || "(no task named)")), right(linked(task.depth, { ...inQueue, task: task.task, status: "waiting" })), right(task.oldest_ms === null ? "–" : duration(task.oldest_ms)), right(rate(task.in_per_s)), right(rate(task.out_per_s)), right(percentiles(task.wait_ms, tracesOf({ ...inQueue, task: task.task, sort: "wait" }))), right(percentiles(task.run_ms, tracesOf({ ...inQueue, task: task.task, sort: "duration" }))), right(linked(task.failures, { ...inQueue, task: task.task, status: "error" }, { kind: "bad" })), right(count(task.retries))], [1, 2, 3, 4, 5, 6, 7, 8], true),
    list("Workers", it.workers, ["Worker", "Share", "Runs", "Run p50", "Prefetch p50", "Prefetch p95", "Failed", "Last run"], (worker) => [[h("a", { href: tracesOf({ ...of, service: worker.service }), "data-link": "" }, worker.service || "(no service named)"), h("span", { class: "where" }, worker.worker)], right(share(worker.share)), right(count(worker.runs)), right(duration(worker.run_p50_ms)), right(duration(worker.prefetch_p50_ms)), right(duration(worker.prefetch_p95_ms)), right(count(worker.failures)), time(worker.last_run_ns)], [1, 2, 3, 4, 5, 6], true),
    list("Longest waits", it.slowest.wait, SLOWEST, slow, [1, 2]),
    list("Longest runs", it.slowest.run, SLOWEST, slow, [1, 2]),
    list("Producers", it.producers, ["Service", "Sent", "Failed to send"], (producer) => [h("a", { href: tracesOf({ ...of, service: producer.service }), "data-link": "" }, producer.service || "(no service named)"), right(count(producer.sent)), right(count(producer.failures))], [1, 2]),
    it.complete ? "" : h("p", { class: "where", "data-key": "bound" }, `Waits of single runs, failures, workers and the longest are of the newest ${count(it.looked_at)} runs.`),
  ];
}

const SLOWEST = ["Started", "Wait", "Run", "Outcome", "Trace"];
const slow = (run) => [time(run.start_ns), right(duration(run.wait_ms)), right(duration(run.run_ms)), h("span", { class: `badge ${{ ok: "ok", failed: "error" }[run.outcome] ?? "state"}` }, run.outcome === "ok" ? "OK" : run.outcome[0].toUpperCase() + run.outcome.slice(1)), trace(run)];

function tiles(it, of, during) {
  const tile = (name, value, kind = "") => h("div", { class: `tile ${kind}` }, h("dt", {}, name), h("dd", {}, value));
  return h(
    "dl",
    { class: "tiles", "data-key": "tiles" },
    tile("Depth", linked(it.depth, { ...of, status: "waiting" }), it.state === "stalled" ? "alarm" : ""),
    tile("Oldest", it.oldest_ms === null ? "–" : h("a", { href: tracesOf({ ...of, status: it.stuck ? "stuck" : "waiting", sort: "wait" }), "data-link": "" }, duration(it.oldest_ms)), it.stuck ? "alarm" : ""),
    tile("Scheduled", linked(it.scheduled, { ...of, status: "scheduled" })),
    tile("In", rate(it.in_per_s)),
    tile("Out", rate(it.out_per_s)),
    tile("Wait p95", it.wait_ms.p95 === null ? "–" : h("a", { href: tracesOf({ ...during, sort: "wait" }), "data-link": "" }, duration(it.wait_ms.p95))),
    tile("Run p95", it.run_ms.p95 === null ? "–" : h("a", { href: tracesOf({ ...during, sort: "duration" }), "data-link": "" }, duration(it.run_ms.p95))),
    tile("Failed", linked(it.failures, { ...during, status: "error" }), it.failures ? "alarm" : ""),
    tile("Retried", linked(it.retries, { ...during, q: "status:retry" })),
    tile("Expired", linked(it.expired + it.expired_waiting, { ...of, status: "expired" })),
    tile("Rejected", linked(it.rejected, { ...during, q: "status:rejected" })),
    tile("Revoked", linked(it.revoked, { ...during, status: "revoked" })),
  );
}

function scatter(it, over) {
  const names = { ok: "ok", failed: "failed" };
  const dots = it.scatter.map((run) => ({ t: run.t, value: run.wait_ms, href: `/trace/${run.trace_id}`, name: names[run.outcome] ?? "other", title: `waited ${duration(run.wait_ms)}, ${run.outcome}` }));
  return h(
    "section",
    { "data-key": "scatter", class: "wide" },
    h("h2", {}, "Waits"),
    dots.length
      ? chart([], ["ok", "failed", "other"].map((name) => ({ key: name, name: `dot-${name}`, label: name === "other" ? "retried, expired or rejected" : name })), { title: "Wait of a run; a dot opens its trace", format: duration, tick, width: 1140, height: 220, dots, ...over })
      : h("p", { class: "empty" }, "No run with a wait in this time range."),
  );
}

function list(title, rows, heads, cells, numbers, wide = false) {
  return h(
    "section",
    { "data-key": title, class: wide ? "wide" : null },
    h("h2", {}, title),
    rows.length
      ? h("div", { class: "scroll sticky-first", tabindex: "0", role: "region", "aria-label": title }, h("table", { class: "list" }, h("thead", {}, h("tr", {}, heads.map((text, at) => h("th", { scope: "col", class: numbers.includes(at) ? "number" : null }, text)))), h("tbody", {}, rows.map((row) => h("tr", {}, cells(row).map((cell, at) => (cell?.isCell ? cell.element : h(at ? "td" : "th", at ? {} : { scope: "row" }, cell))))))))
      : h("p", { class: "empty" }, title === "Oldest messages" ? "Nothing waits." : "None in this time range."),
  );
}

function bucket(seconds) {
  if (seconds === 60) return "minute";
  if (seconds < 60) return `${seconds} s`;
  return seconds < 3600 ? `${seconds / 60} min` : seconds === 3600 ? "hour" : `${Math.round(seconds / 360) / 10} h`;
}

const right = (content) => ({ isCell: true, element: h("td", { class: "number" }, content) });
const whole = (value) => count(Math.round((value ?? 0) * 10) / 10);
const share = (part) => `${Math.round(part * 100)} %`;

function time(ns) {
  return h("time", { datetime: exactly(ns), title: exactly(ns) }, clock(ns));
}

function trace({ trace_id: id, span_id: span }) {
  return id ? h("a", { href: span ? `/trace/${id}/${span}` : `/trace/${id}`, "data-link": "" }, h("code", { class: "id-short" }, id.slice(0, 8))) : "–";
}

/** The message of an exception without its type, which stands beside it. */
function message({ type, message: text }) {
  const short = type.split(".").at(-1);
  for (const prefix of [`${type}: `, `${short}: `]) if (text.startsWith(prefix)) return text.slice(prefix.length);
  return text === type ? "–" : text || "–";
}
