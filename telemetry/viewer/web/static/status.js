// What became of a trace or a message, in the words of the whole page.

import { h } from "./dom.js";

/** The words of each status. */
export const STATUS_WORDS = { ok: "OK", error: "Error", stuck: "Stuck", expired: "Expired", overdue: "Overdue", waiting: "Waiting", scheduled: "Scheduled", broken: "Parent missing", revoked: "Revoked" };

/** Badges for the status of a trace, its messages that nobody has taken, and states of its runs. */
export function badges(trace) {
  const live = Object.entries(trace.live ?? {}).filter(([state, times]) => state !== trace.status || times > 1);
  const told = new Set(["SUCCESS", "RETRY", trace.status.toUpperCase()]);
  const states = Object.entries(trace.states ?? {}).filter(([state, times]) => !told.has(state) || (times > 1 && state === trace.status.toUpperCase()));
  return [
    h("span", { class: `badge ${trace.status}` }, STATUS_WORDS[trace.status] ?? trace.status),
    ...live.map(([state, times]) => h("span", { class: `badge ${state}` }, times > 1 ? `${times} ${STATUS_WORDS[state].toLowerCase()}` : STATUS_WORDS[state])),
    ...states.map(([state, times]) => h("span", { class: "badge state" }, times > 1 ? `${state} ×${times}` : state)),
  ];
}
