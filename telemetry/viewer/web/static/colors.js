// The colors of services. A service has the same color in the legend, in bars and in rows.

const COLORS = 12;

/** The classes for the color of the service with this index. */
export function colorOf(index) {
  const at = index ?? 0;
  // After the last color, the colors repeat with a pattern.
  return `color c${at % COLORS}${Math.floor(at / COLORS) % 2 ? " patterned" : ""}`;
}
