// Updates in place: elements that stay keep their focus, selection, scroll position and open details.

/** Make the children of `place` equal to `fresh`. An element with a `data-key` stays the same element. */
export function update(place, ...fresh) {
  const focused = place.contains(document.activeElement) ? document.activeElement : null;
  const target = document.createElement("div");
  target.append(...fresh.flat(Infinity).filter(Boolean));
  children(place, target);
  // An element that moves loses the focus.
  if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
}

function children(old, fresh) {
  const keyed = new Map([...old.children].filter((child) => child.dataset?.key).map((child) => [child.dataset.key, child]));
  let at = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const key = wanted.dataset?.key;
    let found = key ? keyed.get(key) : at;
    if (found && (found.nodeName !== wanted.nodeName || (!key && found.dataset?.key))) found = null;
    if (!found) {
      old.insertBefore(wanted, at);
      continue;
    }
    if (found === at) at = at.nextSibling;
    else old.insertBefore(found, at);
    one(found, wanted);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function one(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) === value || name === "open") continue;
    // The content security policy allows style properties, and no style attributes.
    if (name === "style") old.style.cssText = value;
    else old.setAttribute(name, value);
  }
  children(old, fresh);
}
