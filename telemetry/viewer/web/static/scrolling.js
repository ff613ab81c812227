// Where one was on a page, when one comes back to it: what it shows arrives later than it opens.

const LONGEST = 3000;

/** Remember how far each address was scrolled; `restore` goes back there as soon as it can. */
export function keepPlace() {
  history.scrollRestoration = "manual";
  const places = new Map();
  let stop = null;
  window.addEventListener("scroll", () => stop ?? places.set(location.href, window.scrollY), { passive: true });

  function restore() {
    stop?.();
    const y = places.get(location.href) ?? 0;
    const go = () => {
      window.scrollTo(0, y);
      if (Math.abs(window.scrollY - y) < 2) stop?.();
    };
    const size = new ResizeObserver(go);
    const timer = setTimeout(() => stop?.(), LONGEST);
    const ends = ["wheel", "keydown", "pointerdown", "touchstart"];
    stop = () => {
      stop = null;
      size.disconnect();
      clearTimeout(timer);
      for (const kind of ends) window.removeEventListener(kind, end);
    };
    const end = () => stop?.();
    for (const kind of ends) window.addEventListener(kind, end, { passive: true });
    size.observe(document.getElementById("view"));
  }

  function toTop() {
    stop?.();
    window.scrollTo(0, 0);
  }

  return { restore, toTop };
}
