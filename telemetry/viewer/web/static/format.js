// Numbers and times as people read them.

import { h } from "./dom.js";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A duration in milliseconds, with two or three digits, from a minute in two units, which no line breaks. `duration.py` has the same rules. */
export function duration(ms) {
  return inWords(ms).replaceAll(" ", "\u00a0");
}

function inWords(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 0.0005) return "0 ms";
  if (ms < 0.9995) return `${fixed(ms, 0.001, 0)} µs`;
  if (ms < 9.95) return `${fixed(ms, 1, 1)} ms`;
  if (ms < 999.5) return `${fixed(ms, 1, 0)} ms`;
  if (ms < 59_950) return `${fixed(ms, 1000, ms < 9995 ? 2 : 1)} s`;
  if (Math.round(ms / 1000) < 3600) return inTwo(ms, [MINUTE, "min"], [1000, "s"]);
  if (Math.round(ms / MINUTE) < 2880) return inTwo(ms, [HOUR, "h"], [MINUTE, "min"]);
  return inTwo(ms, [DAY, "d"], [HOUR, "h"]);
}

/** The same for a number that is round, as at a tick of an axis. */
export function tick(ms) {
  return ms ? duration(ms).replace(/\.(\d*?)0+(?=\s)/, (_, digits) => (digits ? `.${digits}` : "")) : "0";
}

/** Milliseconds in a unit, with so many decimals. Halves are rounded up, in whole nanoseconds: 1.295 is a little less as a number. */
function fixed(ms, unit, decimals) {
  const step = (unit * 1e6) / 10 ** decimals;
  return (Math.round(Math.round(ms * 1e6) / step) / 10 ** decimals).toFixed(decimals);
}

function inTwo(ms, [length, large], [step, small]) {
  const rounded = Math.round(ms / step) * step;
  const rest = (rounded % length) / step;
  return `${Math.floor(rounded / length)} ${large}${rest ? ` ${rest} ${small}` : ""}`;
}

const dateOf = (ns) => new Date(Number(BigInt(ns) / 1_000_000n));
const two = (number) => String(number).padStart(2, "0");
const day = (date) => `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
const time = (date) => [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");

/** The time of day from nanoseconds since the epoch, which are text. With its date, unless that is today. */
export function clock(ns) {
  const date = dateOf(ns);
  const today = date.toDateString() === new Date().toDateString();
  return today ? time(date) : `${day(date)} ${time(date)}`;
}

/** The same as an element with UTC on hover. */
export function clockOf(ns) {
  return h("time", { datetime: utc(ns), title: utc(ns) }, clock(ns));
}

/** Date and time to the millisecond as an element: in the browser's time zone, in UTC on hover. */
export function timeOf(ns) {
  const date = dateOf(ns);
  return h("time", { datetime: utc(ns), title: utc(ns) }, `${day(date)} ${time(date)}.${String(date.getMilliseconds()).padStart(3, "0")}`);
}

const utc = (ns) => dateOf(ns).toISOString();

export function count(number) {
  return number.toLocaleString("en");
}

/** A number in few characters: "950", "12K", "1.2M". */
export function compact(number) {
  return number.toLocaleString("en", { notation: "compact" });
}

/** A number of things: "1 span", "2 spans". */
export function counted(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

const RATES = [[1, "s"], [60, "min"], [3600, "h"]];

/** A rate in the unit in which it is 1 or more. */
export function rate(perSecond) {
  return rates(perSecond)[0];
}

/** Rates that are compared, in one unit: that of the largest. */
export function rates(...perSecond) {
  const [seconds, unit] = rateUnit(perSecond);
  return perSecond.map((value) => (value ? `${few(value * seconds)}/${unit}` : "0"));
}

/** The same as one text: "6.3 / 2.9 per min". */
export function ratesTogether(...perSecond) {
  const [seconds, unit] = rateUnit(perSecond);
  const numbers = perSecond.map((value) => few(value * seconds)).join(" / ");
  return Math.max(...perSecond) ? `${numbers} per ${unit}` : numbers;
}

function rateUnit(perSecond) {
  const largest = Math.max(...perSecond);
  return RATES.find(([length]) => largest * length >= 1) ?? RATES.at(-1);
}

/** A number with one decimal below 10, and without a decimal that says nothing. */
function few(number) {
  return count(Number(number.toFixed(number < 9.95 ? 1 : 0)));
}

// Steps of an axis that is longer than a minute, in milliseconds.
const LONG_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800].map((seconds) => seconds * 1000);

/** Steps of an axis: round numbers, about `wanted` of them. */
export function ticks(end, wanted = 5, begin = 0) {
  const length = end - begin;
  if (!(length > 0)) return [begin];
  const rough = length / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const long = length > 60000 ? LONG_STEPS.find((n) => n >= rough) : undefined;
  const step = long ?? [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let at = Math.ceil(begin / step) * step; at <= end + length / 1e4; at += step) found.push(at);
  return found.length > 1 ? found : [begin, end];
}
