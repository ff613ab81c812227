// Queues and tasks: how long messages wait, and how long they run.

import { get } from "./api.js";
import { chart } from "./chart.js";
import { range } from "./range.js";
import { everySeconds } from "./stream.js";
import { h } from "./dom.js";
import { count, duration, rate } from "./format.js";

/** Show the queues in `view`. */
export function showQueues(view) {
  document.title = "Queues · queuehop";
  const place = h("div");
  const chosen = range("/queues", () => read());
  let closed = false;
  view.append(h("div", { class: "page-head" }, h("h1", {}, "Queues"), chosen.element, h("p", { class: "legend" }, ["p50", "p95", "p99"].map((line) => h("span", {}, h("i", { class: `swatch line-${line}`, "aria-hidden": "true" }), line)))), place);

  async function read() {
    let answer;
    try {
      answer = await get(`/api/queues?since_s=${chosen.value()}`);
    } catch (error) {
      // What was read before stays, marked as old by the frame.
      if (!closed && !(error.unreachable && place.childElementCount)) place.replaceChildren(h("p", { class: "empty" }, error.message));
      return;
    }
    if (closed) return;
    const queues = answer.queues.toSorted((a, b) => (b.wait_ms?.p95 ?? 0) - (a.wait_ms?.p95 ?? 0));
    place.replaceChildren(queues.length ? table(queues, answer) : h("p", { class: "empty" }, "No message was sent or run in this time. Choose a longer one, or wait: this page reads itself again."));
  }

  read();
  const stop = everySeconds(5, read);
  return {
    refresh: read,
    keys: { r: read },
    close() {
      closed = true;
      stop();
    },
  };
}

function table(queues, { since_s: since, bucket_s: bucket }) {
  const three = (values) => (values && values.p50 !== null ? ["p50", "p95", "p99"].map((line) => h("td", { class: "number" }, duration(values[line]))) : h("td", { colspan: 3, class: "number" }, "–"));
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Queues and tasks" },
    h(
      "table",
      { class: "queues" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col", rowspan: 2 }, "Queue and task"), h("th", { scope: "col", rowspan: 2, class: "number" }, "Runs"), h("th", { scope: "colgroup", colspan: 4 }, "Wait"), h("th", { scope: "colgroup", colspan: 4 }, "Run"), h("th", { scope: "col", rowspan: 2, class: "number" }, "Failed"), h("th", { scope: "col", rowspan: 2, class: "number" }, "Retried"), h("th", { scope: "col", rowspan: 2, class: "number" }, "Waiting now")), h("tr", {}, [0, 1].map(() => [...["p50", "p95", "p99"].map((line) => h("th", { scope: "col", class: "number" }, line)), h("th", { scope: "col" }, "over time")]))),
      h(
        "tbody",
        {},
        queues.map((queue) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, h("a", { href: `/?${new URLSearchParams({ queue: queue.queue, task: queue.task, sort: "wait" })}`, "data-link": "" }, queue.task || "(no task named)"), h("span", { class: "where" }, queue.queue)),
            h("td", { class: "number" }, count(queue.runs), h("span", { class: "where" }, rate(queue.per_s))),
            three(queue.wait_ms),
            h("td", {}, chart(queue.series, "wait", { since, bucket })),
            three(queue.run_ms),
            h("td", {}, chart(queue.series, "run", { since, bucket })),
            h("td", { class: `number ${queue.failures ? "bad" : ""}` }, count(queue.failures)),
            h("td", { class: "number" }, count(queue.retries)),
            h("td", { class: `number ${queue.waiting ? "late" : ""}` }, count(queue.waiting)),
          ),
        ),
      ),
    ),
  );
}
