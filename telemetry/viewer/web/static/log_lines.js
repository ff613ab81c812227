// One log record: on the page of log records, and in the details of a span.

import { h } from "./dom.js";
import { count, duration } from "./format.js";
import { attributes, longText } from "./table.js";

const [WARN, ERROR] = [13, 17];

/** The class for the severity of a log record. */
export const severity = (log) => (log.severity >= ERROR ? "error" : log.severity >= WARN ? "warn" : "");

/** The section with the log records of a span that starts at `startNs`. */
export function logSection(logs, startNs, hasMore) {
  if (!logs.length) return "";
  const after = (log) => Number(BigInt(log.time_ns) - BigInt(startNs)) / 1e6;
  return h(
    "section",
    { class: "log-lines" },
    h("h3", {}, "Logs"),
    h("ol", {}, logs.map((log) => h("li", {}, logLine(log, h("span", { class: "at", title: log.logger }, offset(after(log))))))),
    hasMore ? h("p", { class: "late" }, `Only the first ${count(logs.length)} log records are shown.`) : "",
  );
}

const offset = (ms) => (ms < 0 ? `${duration(-ms)} before` : `+${duration(ms)}`);

/** A line with `when`, level and text, which opens to the exception and the attributes. */
export function logLine(log, when) {
  const { "exception.stacktrace": stack, "exception.type": type, "exception.message": message, ...rest } = log.attributes;
  return h(
    "details",
    {},
    h("summary", {}, when, " ", h("span", { class: "level" }, h("span", { class: `badge ${severity(log)}` }, log.level || "LOG")), " ", h("span", { class: "log-text" }, log.text)),
    type || message ? h("p", { class: "message" }, [type, message].filter(Boolean).join(": ")) : "",
    stack ? longText("Stack trace", stack) : "",
    attributes({ ...rest, logger: log.logger, service: log.service }),
  );
}
