// The page of one queue, or of one task in it: producers, workers, waits and failures.

import { chart } from "./chart.js";
import { breakable, entitle, h, nothing } from "./dom.js";
import { clockOf, count, duration, rates, tick } from "./format.js";
import { update } from "./morph.js";
import { polling } from "./polling.js";
import { brokerName, estimates, linked, NO_QUEUE, oldest, pageOf, percentiles, RUNS, stateBadge, tracesOf, WAITS } from "./queues.js";
import { range } from "./range.js";
import { reach } from "./scrolling.js";
import { STATUS_WORDS } from "./status.js";

const PERCENTILES = ["50", "95", "99"];
const NO_TASK = "(no task name)";

/** Show the queue that the address names in `view`. */
export function showQueue(view) {
  const given = new URLSearchParams(location.search);
  const queue = given.get("queue") ?? "";
  const [task, broker] = [given.get("task"), given.get("broker")];
  const title = task ?? queue;
  entitle(title || NO_QUEUE);
  const chosen = range("/queue", () => shown.refresh());
  const state = h("span");
  const place = h("div", { class: "queue-page" });
  const trail = [h("a", { href: "/queues", "data-link": "" }, "Queues"), task === null ? null : h("a", { href: pageOf(queue, broker, given.get("since_s")), "data-link": "" }, queue || NO_QUEUE)];
  view.append(
    h("nav", { class: "trail", "aria-label": "Breadcrumb" }, h("ol", {}, trail.filter(Boolean).map((link) => h("li", {}, link)))),
    h("div", { class: "page-head" }, h("h1", {}, title || (task === null ? NO_QUEUE : NO_TASK)), state, chosen.element, estimates()),
    place,
  );
  let isPlaced = false;
  const shown = polling(place, {
    address() {
      const asked = new URLSearchParams({ queue, since_s: chosen.value() });
      if (task !== null) asked.set("task", task);
      if (broker !== null) asked.set("broker", broker);
      return `/api/queue?${asked}`;
    },
    seconds: 5,
    show(answer) {
      const isKnown = answer.brokers.length > 0;
      // The section that the address names is there from now on.
      if (!isPlaced) requestAnimationFrame(() => reach(location.hash.slice(1)));
      isPlaced = true;
      update(state, isKnown ? stateBadge(answer.state) : "");
      return isKnown ? page(answer, broker) : [nothing(task === null ? "Queue not found" : "Task not found", "No messages of it are stored. The page updates itself.")];
    },
  });
  return shown;
}

function page(it, broker) {
  const inQueue = { queue: it.queue, broker };
  const of = { ...inQueue, task: it.task };
  const during = { ...of, since_s: it.since_s };
  const over = { since: it.since_s, now: it.now, bucket: it.bucket_s };
  return [
    facts(it, of),
    tiles(it, of, during),
    charts(it, over),
    scatter(it, over),
    oldestMessages(it),
    failures(it, during),
    it.task === null ? tasks(it, broker, inQueue) : "",
    workers(it, during),
    list("Longest waits", it.slowest.wait, SLOWEST, slow),
    list("Longest runs", it.slowest.run, SLOWEST, slow),
    producers(it, during),
    it.complete ? "" : h("p", { class: "where", "data-key": "bound" }, `Waits of single runs, workers and the longest waits and runs are those of the newest ${count(it.looked_at)} runs.`),
  ];
}

function facts(it, of) {
  const brokers = it.brokers.filter(Boolean);
  return h("p", { class: "facts", "data-key": "facts" }, brokers.length ? h("span", {}, `Broker: ${brokers.map(brokerName).join(", ")}`) : "", h("span", {}, it.last_run_ns ? ["Last run ", clockOf(it.last_run_ns)] : "No run in this time range"), h("a", { href: tracesOf(of), "data-link": "" }, "All traces"));
}

function tiles(it, of, during) {
  const tile = (name, value, isAlarm = false) => h("div", { class: `tile ${isAlarm ? "alarm" : ""}` }, h("dt", {}, name), h("dd", {}, value));
  const p95 = (values, section) => (values.p95 === null ? h("span", { class: "none" }, "–") : h("a", { href: `#${section}` }, duration(values.p95)));
  const [inward, outward] = rates(it.in_per_s, it.out_per_s);
  return h(
    "dl",
    { class: "tiles", "data-key": "tiles" },
    tile("Depth", linked(it.depth, { ...of, status: "waiting" }), it.state === "stalled"),
    tile("Oldest", oldest(it), it.stuck),
    tile("Scheduled", linked(it.scheduled, { ...of, status: "scheduled" })),
    tile("In", inward),
    tile("Out", outward),
    tile("Wait p95", p95(it.wait_ms, WAITS)),
    tile("Run p95", p95(it.run_ms, RUNS)),
    tile("Failed", linked(it.failures, { ...during, status: "failure" }), it.failures),
    tile("Retried", linked(it.retries, { ...during, status: "retry" })),
    tile("Expired", linked(it.expired + it.expired_waiting, { ...during, status: "expired" })),
    tile("Rejected", linked(it.rejected, { ...during, status: "rejected" })),
    tile("Revoked", linked(it.revoked, { ...during, status: "revoked" })),
    it.unsent ? tile("Failed to send", linked(it.unsent, { ...during, status: "unsent" }), true) : "",
  );
}

function charts(it, over) {
  const numbers = { format: whole, least: 4, ...over };
  const percentileChart = (title, key) => chart(it.series, PERCENTILES.map((p) => ({ key: `${key}_${p}`, name: `p${p}`, label: `p${p}` })), { title, format: duration, tick, ...over });
  return h(
    "div",
    { class: "charts", "data-key": "charts" },
    chart(it.series, [{ key: "depth", name: "depth", label: "depth" }], { title: "Depth", ...numbers }),
    chart(it.series, [{ key: "sent", name: "sent", label: "in" }, { key: "runs", name: "runs", label: "out" }, { key: "failures", name: "p99", label: "failed" }], { title: `In and out per ${bucket(it.bucket_s)}`, ...numbers }),
    percentileChart("Wait", "wait"),
    percentileChart("Run", "run"),
  );
}

function oldestMessages(it) {
  const cells = (message) => [breakable(message.task || "–"), h("span", { class: `badge ${message.state}` }, STATUS_WORDS[message.state] ?? message.state), message.state === "scheduled" ? "–" : duration(message.waited_ms), clockOf(message.due_ns), trace(message)];
  return list("Oldest messages", it.oldest, [["Task"], ["State"], ["Waits for", "number"], ["Due"], ["Trace"]], cells, { none: "No message waits." });
}

function failures(it, during) {
  const cells = (failure) => [h("code", {}, breakable(failure.type)), linked(failure.count, { ...during, exception: failure.type }), linked(failure.retried, { ...during, exception: failure.type, status: "retry" }), h("span", { class: "words" }, message(failure)), trace(failure)];
  return list("Failures", it.exceptions, [["Exception"], ["Count", "number"], ["Retried", "number"], ["Latest message"], ["Latest trace"]], cells);
}

const TASKS = [["Task"], ["Depth", "number"], ["Oldest", "number"], ["In", "number"], ["Out", "number"], ["Wait", "number"], ["Run", "number"], ["Failed", "number"], ["Retried", "number"]];

function tasks(it, broker, inQueue) {
  const cells = (task) => {
    const of = { ...inQueue, task: task.task };
    const during = { ...of, since_s: it.since_s };
    const page = pageOf(it.queue, broker, it.since_s, task.task);
    return [
      h("a", { href: page, "data-link": "" }, breakable(task.task || NO_TASK)),
      linked(task.depth, { ...of, status: "waiting" }),
      oldest(task, page),
      ...rates(task.in_per_s, task.out_per_s),
      percentiles(task.wait_ms, `${page}#${WAITS}`),
      percentiles(task.run_ms, `${page}#${RUNS}`),
      linked(task.failures, { ...during, status: "failure" }, { kind: "bad" }),
      linked(task.retries, { ...during, status: "retry" }),
    ];
  };
  return list("Tasks", it.tasks, TASKS, cells, { isWide: true });
}

const WORKERS = [["Worker"], ["Share", "number"], ["Runs", "number"], ["Run p50", "number"], ["Prefetch p50", "number"], ["Prefetch p95", "number"], ["Failed", "number"], ["Last run"]];

function workers(it, during) {
  const cells = (worker) => [
    [serviceLink(worker.service, during), h("span", { class: "where" }, worker.worker)],
    `${Math.round(worker.share * 100)} %`,
    count(worker.runs),
    duration(worker.run_p50_ms),
    duration(worker.prefetch_p50_ms),
    duration(worker.prefetch_p95_ms),
    count(worker.failures),
    clockOf(worker.last_run_ns),
  ];
  return list("Workers", it.workers, WORKERS, cells, { isWide: true });
}

function producers(it, during) {
  const cells = (producer) => [serviceLink(producer.service, during), count(producer.sent), linked(producer.failures, { ...during, service: producer.service || null, status: "unsent" }, { kind: "bad" })];
  return list("Producers", it.producers, [["Service"], ["Sent", "number"], ["Failed to send", "number"]], cells);
}

const SLOWEST = [["Start"], ["Wait", "number"], ["Run", "number"], ["Outcome"], ["Trace"]];
const OUTCOMES = { ok: ["ok", "OK"], failed: ["error", "Failed"] };

function slow(run) {
  const [kind, text] = OUTCOMES[run.outcome] ?? ["state", run.outcome[0].toUpperCase() + run.outcome.slice(1)];
  return [clockOf(run.start_ns), duration(run.wait_ms), duration(run.run_ms), h("span", { class: `badge ${kind}` }, text), trace(run)];
}

function scatter(it, over) {
  const names = { ok: "ok", failed: "failed" };
  const dots = it.scatter.map((run) => ({ t: run.t, value: run.wait_ms, href: `/trace/${run.trace_id}`, name: names[run.outcome] ?? "other", title: `waited ${duration(run.wait_ms)}, ${run.outcome}` }));
  return h(
    "section",
    { "data-key": "scatter", class: "wide" },
    h("h2", {}, "Waits"),
    dots.length
      ? chart([], ["ok", "failed", "other"].map((name) => ({ key: name, name: `dot-${name}`, label: name === "other" ? "retried, expired or rejected" : name })), { title: "Wait of each run. A dot links to its trace.", format: duration, tick, isWide: true, height: 220, dots, ...over })
      : h("p", { class: "empty" }, "No runs with a wait in this time range."),
  );
}

/** A section with a table. `columns` have a name and a class, and `cells(row)` returns the content of one row. */
function list(title, rows, columns, cells, { isWide = false, none = "None in this time range." } = {}) {
  const cell = (content, at) => h(at ? "td" : "th", at ? { class: columns[at][1] } : { scope: "row" }, content);
  const head = h("thead", {}, h("tr", {}, columns.map(([text, kind]) => h("th", { scope: "col", class: kind }, text))));
  const table = () => h("table", { class: "list" }, head, h("tbody", {}, rows.map((row) => h("tr", {}, cells(row).map(cell)))));
  return h(
    "section",
    { "data-key": title, id: title.toLowerCase().replace(" ", "-"), tabindex: "-1", class: isWide ? "wide" : null },
    h("h2", {}, title),
    rows.length ? h("div", { class: "scroll sticky-first", tabindex: "0", role: "region", "aria-label": title }, table()) : h("p", { class: "empty" }, none),
  );
}

function bucket(seconds) {
  return { 1: "second", 60: "minute", 3600: "hour" }[seconds] ?? tick(seconds * 1000);
}

const whole = (value) => count(Math.round((value ?? 0) * 10) / 10);

function serviceLink(service, during) {
  return service ? h("a", { href: tracesOf({ ...during, service }), "data-link": "" }, service) : "(no service name)";
}

function trace({ trace_id: id, span_id: span }) {
  return id ? h("a", { href: span ? `/trace/${id}/${span}` : `/trace/${id}`, "data-link": "" }, h("code", { class: "id-short" }, id.slice(0, 8))) : "–";
}

/** The message of an exception without its type, which has its own column. */
function message({ type, message: text }) {
  const short = type.split(".").at(-1);
  for (const prefix of [`${type}: `, `${short}: `]) if (text.startsWith(prefix)) return text.slice(prefix.length);
  return text === type ? "–" : text || "–";
}
