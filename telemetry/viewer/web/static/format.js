// Numbers and times as people read them.

import { h } from "./dom.js";

/** Milliseconds, with as many digits as say something. */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 0.0005) return "0 ms";
  if (ms < 0.9995) return `${(ms * 1000).toFixed(0)} µs`;
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  if (ms < 59950) return `${(ms / 1000).toFixed(ms < 9995 ? 2 : 1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return inTwo(seconds, 60, "min", "s");
  const minutes = Math.round(seconds / 60);
  if (minutes < 2880) return inTwo(minutes, 60, "h", "min");
  return inTwo(Math.round(minutes / 60), 24, "d", "h");
}

/** The same for a number that is round, as at a tick of an axis. */
export function tick(ms) {
  return ms ? duration(ms).replace(/\.(\d*?)0+(?= )/, (_, digits) => (digits ? `.${digits}` : "")) : "0";
}

function inTwo(number, each, large, small) {
  const rest = number % each;
  return `${Math.floor(number / each)} ${large}${rest ? ` ${rest} ${small}` : ""}`;
}

/** A time of day from nanoseconds since the epoch, which come as text. */
export function clock(ns) {
  const date = new Date(Number(BigInt(ns) / 1000000n));
  const time = date.toLocaleTimeString(undefined, { hour12: false });
  const sameDay = date.toDateString() === new Date().toDateString();
  return sameDay ? time : `${date.toLocaleDateString()} ${time}`;
}

/** A moment as an element: in the browser's time zone, in UTC on hover. */
export function timeOf(ns) {
  const date = new Date(Number(BigInt(ns) / 1000000n));
  const time = date.toLocaleTimeString(undefined, { hour12: false, hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });
  return h("time", { datetime: exactly(ns), title: exactly(ns) }, `${date.toLocaleDateString()} ${time}`);
}

/** The same in UTC, with milliseconds and a date, for a title. */
export function exactly(ns) {
  return new Date(Number(BigInt(ns) / 1000000n)).toISOString();
}

export function count(number) {
  return number.toLocaleString("en");
}

export function rate(perSecond) {
  if (perSecond >= 10) return `${perSecond.toFixed(0)}/s`;
  if (perSecond >= 0.1) return `${perSecond.toFixed(1)}/s`;
  if (perSecond * 60 >= 0.1) return `${(perSecond * 60).toFixed(1)}/min`;
  return `${(perSecond * 3600).toFixed(perSecond * 3600 < 10 ? 1 : 0)}/h`;
}

// Steps of an axis that is longer than a minute, in milliseconds.
const LONG_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800].map((seconds) => seconds * 1000);

/** Steps of an axis: round numbers, about `wanted` of them. */
export function ticks(end, wanted = 5) {
  if (!(end > 0)) return [0];
  const rough = end / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const long = end > 60000 ? LONG_STEPS.find((n) => n >= rough) : undefined;
  const step = long ?? [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let at = 0; at <= end * 1.0001; at += step) found.push(at);
  return found.length > 1 ? found : [0, end];
}
