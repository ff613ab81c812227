// One event stream for all tabs: a browser allows six connections to a server.
//
// One of the visible tabs has a lock, reads the stream and passes each event to the others. A hidden
// tab reads nothing. The next tab gets the lock when the tab that has it is hidden or closed.

const NAME = "queuehop-events";
const KINDS = ["trace", "stats"];
const FIRST_RETRY = 1000;
const LONGEST_RETRY = 15000;

/**
 * Call `heard(kind, value)` for each event while this tab is visible, `connected(up)` when the
 * connection comes up or goes down, and `missed()` when events may have been missed.
 */
export function listen({ heard, connected, missed }) {
  const shared = "locks" in navigator && "BroadcastChannel" in window;
  let leave = null;
  let isUp = null;
  let behind = true;

  function receive(kind, value) {
    if (kind !== "up") return heard(kind, value);
    if (value !== isUp) connected((isUp = value));
    if (!value) behind = true;
    else if (behind) {
      behind = false;
      missed();
    }
  }

  function join() {
    behind = true;
    leave = shared ? takeTurns(receive) : lead(receive);
  }

  function update() {
    if (document.visibilityState === "visible") {
      if (!leave) join();
    } else {
      leave?.();
      leave = null;
    }
  }

  document.addEventListener("visibilitychange", update);
  window.addEventListener("pagehide", () => {
    leave?.();
    leave = null;
  });
  window.addEventListener("pageshow", update);
  update();
}

/** Read the stream here if this tab has the lock, else from the tab that has it. Return a function that stops it. */
function takeTurns(receive) {
  const channel = new BroadcastChannel(NAME);
  const waiting = new AbortController();
  const last = new Map();
  let release = null;
  channel.onmessage = ({ data: [kind, value] }) => {
    if (kind !== "hello") receive(kind, value);
    else if (release) for (const entry of last) channel.postMessage(entry);
  };
  navigator.locks
    .request(NAME, { signal: waiting.signal }, () => {
      const stop = lead((kind, value) => {
        if (kind !== "trace") last.set(kind, value);
        receive(kind, value);
        channel.postMessage([kind, value]);
      });
      return new Promise((resolve) => {
        release = () => {
          stop();
          resolve();
        };
      });
    })
    .catch(() => {}); // Aborted: this tab was hidden before it got the lock.
  channel.postMessage(["hello"]);
  return () => {
    waiting.abort();
    release?.();
    channel.close();
  };
}

/** Read the stream here, and open it again when it breaks. Return a function that stops it. */
function lead(pass) {
  let source = null;
  let timer = null;
  let pause = FIRST_RETRY;
  const open = () => {
    source = new EventSource("/api/events");
    source.onopen = () => {
      pause = FIRST_RETRY;
      pass("up", true);
    };
    source.onerror = () => {
      pass("up", false);
      // The browser tries again by itself, but not after an answer such as 503.
      if (source.readyState !== EventSource.CLOSED) return;
      timer = setTimeout(open, pause);
      pause = Math.min(2 * pause, LONGEST_RETRY);
    };
    for (const kind of KINDS) source.addEventListener(kind, (event) => pass(kind, JSON.parse(event.data)));
  };
  open();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}
