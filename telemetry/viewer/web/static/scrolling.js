// The scroll position of a page, restored on the way back. The content arrives later than the page opens.

const LONGEST = 3000;

/** Scroll to the element with this id, and focus it, as a link to a part of a page does. */
export function reach(id) {
  const place = document.getElementById(id);
  place?.scrollIntoView();
  place?.focus({ preventScroll: true });
}

/** Remember the scroll position of each address. `restore` scrolls there when the content is long enough. */
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
