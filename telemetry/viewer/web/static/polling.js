// A page that reads its data every few seconds and updates in place.

import { get } from "./api.js";
import { h, loading, toast } from "./dom.js";
import { update } from "./morph.js";

/** Show the answer to `address()` in `place`, as the elements that `show(answer)` returns, every `seconds`. */
export function polling(place, { address, seconds, show }) {
  let closed = false;
  let isRead = false;
  let isOld = false;
  let isBusy = false;
  let request = null;
  place.append(loading());

  async function read() {
    request?.abort();
    request = new AbortController();
    isBusy = true;
    let answer;
    try {
      answer = await get(address(), request.signal);
    } catch (error) {
      if (closed || error.name === "AbortError") return;
      isBusy = false;
      // The data on the page stays. While the viewer is down, the frame shows that.
      if (!isRead) update(place, h("p", { class: "empty", role: "alert" }, error.message));
      else if (!isOld && !error.unreachable) toast(error.message);
      isOld = true;
      return;
    }
    if (closed) return;
    isRead = true;
    isOld = isBusy = false;
    update(place, ...show(answer));
  }

  read();
  // An answer that takes longer than that is waited for.
  const stop = everySeconds(seconds, () => isBusy || read());
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

/** Call `read` every `seconds` while this tab is visible. Return a function that stops it. */
export function everySeconds(seconds, read) {
  const timer = setInterval(() => document.visibilityState === "visible" && read(), seconds * 1000);
  return () => clearInterval(timer);
}
