"""The wait of a message between its send and its run, recorded by the run or estimated."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from ...otlp.decode import ReceivedSpan
from ...tracing.waits import parse_eta
from .messaging import number, queue_of, role_of, text

#: The state of a message that no worker has taken: not due yet, due, due after a countdown, due for
#: too long, or expired.
LiveState = Literal["scheduled", "waiting", "overdue", "stuck", "expired"]

#: A message is stuck when it has been due for this long, in nanoseconds.
STUCK_AFTER = 60 * 10**9

#: The time of an event that never happens, in Unix nanoseconds: the largest integer of SQLite.
NEVER = 2**63 - 1

ETA, EXPIRES = "celery.task.eta", "celery.task.expires"

SCHEDULED, QUEUE, PREFETCH = "celery.wait.scheduled", "celery.wait.queue", "celery.wait.prefetch"
SKEWED = "celery.wait.skewed"
#: Sentry's wait of a run, in milliseconds.
RECEIVE_LATENCY = "messaging.message.receive.latency"

#: Recorded waits that are longer are ignored: ten years, in seconds.
LONGEST = 3.2e8

#: A clock is ahead of the viewer's if a span ends this long after it arrived, in nanoseconds.
AHEAD = 10**9

#: The longest time that a worker needs to start the span of a run, in nanoseconds.
MOMENT = 50 * 10**6


class Wait(msgspec.Struct, eq=False):
    """A wait, in nanoseconds. A wait without a *run* is live.

    *estimated*: it was computed from the times of the spans because the run does not record it.
    *skewed*: the clocks of the two sides disagree, by at least *skew_ns* if that is known. A live
    wait has a *state*, and the Unix times at which its message is due and expires. *knows*: the
    producer records countdowns and expiries, so a message without them has none.
    """

    send: ReceivedSpan | None
    run: ReceivedSpan | None
    start_ns: int
    end_ns: int
    scheduled_ns: int
    queue_ns: int
    prefetch_ns: int
    queue: str
    skewed: bool = False
    skew_ns: int | None = None
    estimated: bool = False
    state: LiveState | None = None
    due_ns: int = 0
    expires_ns: int = NEVER
    knows: bool = True

    @property
    def waited_ns(self) -> int:
        """The wait as shown, sorted and searched: the time in the queue and in the worker."""
        return self.queue_ns + self.prefetch_ns

    @property
    def live(self) -> bool:
        return self.run is None

    @property
    def of(self) -> ReceivedSpan:
        """The run, or the send if there is no run yet."""
        span = self.run or self.send
        assert span is not None
        return span

    @property
    def phases(self) -> Mapping[str, tuple[int, int]]:
        """The start and end of each phase."""
        taken = self.end_ns - self.prefetch_ns
        due = taken - self.queue_ns
        return {
            "scheduled": (self.start_ns, due),
            "queue": (due, taken),
            "prefetch": (taken, self.end_ns),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the wait in the format of the API, in milliseconds."""
        return {
            "waited_ms": self.waited_ns / 1e6,
            "scheduled_ms": self.scheduled_ns / 1e6,
            "queue_ms": self.queue_ns / 1e6,
            "prefetch_ms": self.prefetch_ns / 1e6,
            "skewed": self.skewed,
            "skew_ms": None if self.skew_ns is None else self.skew_ns / 1e6,
            "queue": self.queue,
            "live": self.live,
            "state": self.state,
            "due_ns": str(self.due_ns) if self.live else None,
            "expires_ns": str(self.expires_ns) if self.expires_ns < NEVER else None,
            "knows": self.knows,
            "estimated": self.estimated,
        }


Node = ReceivedSpan | Wait


def wait_of(run: ReceivedSpan, send: ReceivedSpan | None) -> Wait | None:
    """Return the wait of *run*, or None if unknown. *send* published it, if known."""
    early = send.start_ns - run.start_ns if send is not None else 0
    if early > 0 and role_of(run) == "take":
        early = 0  # A span that receives messages may begin before they are sent.
    parts = [_nanoseconds(run, key) for key in (SCHEDULED, QUEUE, PREFETCH)]
    estimated = parts == [None, None, None]
    if estimated and (latency := number(run.attributes, RECEIVE_LATENCY)) is not None:
        parts[1], estimated = int(min(latency / 1e3, LONGEST) * 1e9), False
    elif estimated:
        if send is None or _is_inside(run, send):
            return None
        parts[1] = max(0, run.start_ns - max(send.end_ns, send.start_ns))
    scheduled, queued, prefetched = [part or 0 for part in parts]
    start = run.start_ns - scheduled - queued - prefetched
    # A worker needs a moment from the end of the wait to the start of its span. The wait would then
    # begin that much after the end of its send.
    moment = start - send.end_ns if send is not None else 0
    moment = moment if 0 < moment <= MOMENT else 0
    return Wait(
        send=send,
        run=run,
        start_ns=max(0, start - moment),
        end_ns=run.start_ns - moment,
        scheduled_ns=scheduled,
        queue_ns=queued,
        prefetch_ns=prefetched,
        queue=queue_of(run) or (queue_of(send) if send else ""),
        skewed=run.attributes.get(SKEWED) is True or early > 0,
        skew_ns=early if early > 0 else None,
        estimated=estimated,
    )


def live_wait(
    send: ReceivedSpan,
    now_ns: int,
    stuck_after_ns: int = STUCK_AFTER,
    arrived_ns: int | None = None,
) -> Wait:
    """Return the wait of a message that no worker has taken by *now_ns*.

    Its state depends only on the attributes of the send and on the time. If the producer does not
    record countdowns, a message is never stuck: it may be scheduled. The send *arrived_ns* at the
    viewer: if it ended later, the producer's clock is ahead. The message is then due by the
    viewer's clock, and its wait is drawn by the producer's.
    """
    sent = max(send.start_ns, send.end_ns)
    ahead = max(0, sent - (now_ns if arrived_ns is None else arrived_ns))
    eta, expires = _time(send, ETA), _time(send, EXPIRES)
    due = sent - ahead if eta is None else max(sent - ahead, eta)
    end = max(sent, min(now_ns, NEVER if expires is None else expires) + ahead)
    scheduled = min(due + ahead, end) - sent
    knows = bool(text(send.attributes, ETA, EXPIRES, "celery.task.name"))
    state: LiveState = "overdue" if due > sent - ahead else "waiting"
    if expires is not None and expires <= now_ns:
        state = "expired"
    elif due > now_ns:
        state = "scheduled"
    elif knows and now_ns - due >= stuck_after_ns:
        state = "stuck"
    return Wait(
        send=send,
        run=None,
        start_ns=sent,
        end_ns=end,
        scheduled_ns=scheduled,
        queue_ns=end - sent - scheduled,
        prefetch_ns=0,
        queue=queue_of(send),
        skewed=ahead >= AHEAD,
        skew_ns=ahead or None,
        estimated=True,
        state=state,
        due_ns=due,
        expires_ns=NEVER if expires is None else expires,
        knows=knows,
    )


def _time(send: ReceivedSpan, key: str) -> int | None:
    """Return the Unix nanoseconds of an ISO 8601 attribute, or None."""
    seconds = parse_eta(send.attributes.get(key))
    return None if seconds is None else max(0, min(round(seconds * 1e9), NEVER))


def _nanoseconds(run: ReceivedSpan, key: str) -> int | None:
    seconds = number(run.attributes, key)
    return None if seconds is None or seconds > LONGEST else round(seconds * 1e9)


def _is_inside(run: ReceivedSpan, send: ReceivedSpan) -> bool:
    """Return whether *run* happened inside its send: eagerly, without a queue."""
    return (
        run.instance == send.instance
        and run.service == send.service
        and send.start_ns <= run.start_ns
        and run.end_ns <= send.end_ns
    )
