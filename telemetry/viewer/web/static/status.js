// The statuses of traces and messages, and their badges.

import { h } from "./dom.js";

/** The name of each status. */
export const STATUS_WORDS = { ok: "OK", error: "Error", stuck: "Stuck", expired: "Expired", overdue: "Overdue", waiting: "Waiting", scheduled: "Scheduled", broken: "Parent missing", revoked: "Revoked" };

// States of runs that say nothing more than the status.
const UNREMARKABLE = new Set(["SUCCESS", "RETRY"]);

/** The badges of a trace: its status, its messages that no worker has taken, and the states of its runs. */
export function badges(trace) {
  const live = Object.entries(trace.live ?? {}).filter(([state, times]) => state !== trace.status || times > 1);
  const implied = trace.status === "error" ? "FAILURE" : trace.status.toUpperCase();
  const states = Object.entries(trace.states ?? {}).filter(([state, times]) => !UNREMARKABLE.has(state) && (state !== implied || times > 1));
  return [
    h("span", { class: `badge ${trace.status}` }, STATUS_WORDS[trace.status] ?? trace.status),
    ...live.map(([state, times]) => h("span", { class: `badge ${state}` }, times > 1 ? `${times} ${STATUS_WORDS[state].toLowerCase()}` : STATUS_WORDS[state])),
    ...states.map(([state, times]) => h("span", { class: "badge state" }, times > 1 ? `${state} ×${times}` : state)),
  ];
}
