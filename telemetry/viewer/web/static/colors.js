// The colours of services. A service has the same colour in the legend, in bars and in rows.

const COLORS = 12;

/** The classes for the colour of the service with this index. */
export function colorOf(index) {
  const at = index ?? 0;
  // After the last colour, the colours repeat with a pattern.
  return `color c${at % COLORS}${Math.floor(at / COLORS) % 2 ? " patterned" : ""}`;
}
