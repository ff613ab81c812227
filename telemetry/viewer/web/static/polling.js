// A page that reads its data every few seconds, and shows it in place.

import { get } from "./api.js";
import { h, loading, toast } from "./dom.js";
import { update } from "./morph.js";

/** Show in `place` what `show` makes of the answer to `address()`, again every so many `seconds`. */
export function polling(place, { address, seconds, show }) {
  let closed = false;
  let isRead = false;
  let isOld = false;
  let request = null;
  place.append(loading());

  async function read() {
    request?.abort();
    request = new AbortController();
    let answer;
    try {
      answer = await get(address(), request.signal);
    } catch (error) {
      if (closed || error.name === "AbortError") return;
      // What was read before stays. While the viewer is down, the frame says so.
      if (!isRead) update(place, h("p", { class: "empty", role: "alert" }, error.message));
      else if (!isOld && !error.unreachable) toast(error.message);
      isOld = true;
      return;
    }
    if (closed) return;
    isRead = true;
    isOld = false;
    update(place, ...show(answer));
  }

  read();
  const stop = everySeconds(seconds, read);
  return {
    refresh: read,
    keys: { r: read },
    close() {
      closed = true;
      request?.abort();
      stop();
    },
  };
}

/** Call `read` every so many seconds while this tab is visible; return how to stop. */
export function everySeconds(seconds, read) {
  const timer = setInterval(() => document.visibilityState === "visible" && read(), seconds * 1000);
  return () => clearInterval(timer);
}
