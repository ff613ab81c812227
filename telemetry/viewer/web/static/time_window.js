// The part of a trace's time that the waterfall shows, in milliseconds from the start of the trace.

// A shorter window cannot be seen.
const SMALLEST = 0.001;
// A window that covers almost everything is no zoom.
const ALMOST_ALL = 0.999;

/** Return the whole time of a trace: from its start, or earlier if the clock of its first span says so. */
export function wholeOf(trace) {
  const first = Math.min(0, trace.rows[0]?.start_ms ?? 0);
  return [first, first + Math.max(SMALLEST, trace.duration_ms - first)];
}

/** Return `range` within `whole`; null if that is everything, or too short. */
export function within([begin, end], range) {
  if (!range || range[1] - range[0] >= (end - begin) * ALMOST_ALL) return null;
  const [from, to] = [Math.max(begin, range[0]), Math.min(end, range[1])];
  return to - from < SMALLEST ? null : [from, to];
}

/** Return the window `by` times as long around `middle`, moved so that it is within `whole`. */
export function scaled(whole, [begin, end], by, middle = (begin + end) / 2) {
  const length = Math.min(whole[1] - whole[0], (end - begin) * by);
  return from(whole, middle - length / 2, length);
}

/** Return the window moved by a share of its length, within `whole`. */
export function panned(whole, [begin, end], share) {
  return from(whole, begin + share * (end - begin), end - begin);
}

function from([first, last], begin, length) {
  const at = Math.max(first, Math.min(last - length, begin));
  return [at, at + length];
}
