// A page that reads its data every few seconds, and shows it in place.

import { get } from "./api.js";
import { h, loading } from "./dom.js";
import { update } from "./morph.js";

/** Show in `place` what `show` makes of the answer to `address()`, again every so many `seconds`. */
export function polling(place, { address, seconds, show }) {
  let closed = false;
  let isRead = false;
  let request = null;
  place.append(loading());

  async function read() {
    request?.abort();
    request = new AbortController();
    let answer;
    try {
      answer = await get(address(), request.signal);
    } catch (error) {
      // What was read before stays, marked as old by the frame.
      if (closed || error.name === "AbortError" || (error.unreachable && isRead)) return;
      update(place, h("p", { class: "empty", role: "alert" }, error.message));
      return;
    }
    if (closed) return;
    isRead = true;
    update(place, ...show(answer));
  }

  read();
  const timer = setInterval(() => document.visibilityState === "visible" && read(), seconds * 1000);
  return {
    refresh: read,
    keys: { r: read },
    close() {
      closed = true;
      request?.abort();
      clearInterval(timer);
    },
  };
}
