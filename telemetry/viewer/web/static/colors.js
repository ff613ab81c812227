// The colours of services: each has one on a whole page, in its legend, its bars and its rows.

const COLORS = 12;

/** The classes that give an element the colour of the service with this index. */
export function colorOf(index) {
  const at = index ?? 0;
  // Beyond the colours there are, they come again with a pattern.
  return `color c${at % COLORS}${Math.floor(at / COLORS) % 2 ? " patterned" : ""}`;
}
