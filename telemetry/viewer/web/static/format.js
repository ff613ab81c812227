// Numbers and times as people read them.

/** Milliseconds, with as many digits as say something. */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 0.001) return "0 ms";
  if (ms < 1) return `${(ms * 1000).toFixed(0)} µs`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${ms.toFixed(0)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`;
  if (ms < 3600000) return `${Math.floor(ms / 60000)} min ${Math.round((ms % 60000) / 1000)} s`;
  return `${Math.floor(ms / 3600000)} h ${Math.round((ms % 3600000) / 60000)} min`;
}

/** A time of day from nanoseconds since the epoch, which come as text. */
export function clock(ns) {
  const date = new Date(Number(BigInt(ns) / 1000000n));
  const time = date.toLocaleTimeString(undefined, { hour12: false });
  const sameDay = date.toDateString() === new Date().toDateString();
  return sameDay ? time : `${date.toLocaleDateString()} ${time}`;
}

/** The same with milliseconds and a date, for a title. */
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

/** Steps of an axis: round numbers, about `wanted` of them. */
export function ticks(end, wanted = 5) {
  if (!(end > 0)) return [0];
  const rough = end / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let at = 0; at <= end * 1.0001; at += step) found.push(at);
  return found.length > 1 ? found : [0, end];
}
