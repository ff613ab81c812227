"""The analysis of a trace: waits, the critical path, its sentence, and problems."""

import random
import re
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from telemetry.otlp.decode import Link, ReceivedSpan
from telemetry.viewer.analysis.hops import Trace
from telemetry.viewer.analysis.sentence import sentence
from telemetry.viewer.analysis.summary import summarize

from ..spans import TRACE, WEB, WORKER, derived, hops, in_other_trace, ms, rows_of, run, send, span


@pytest.fixture
def order() -> list[ReceivedSpan]:
    """An order: 6 ms in the web side, 380 in the queue, 26 in the worker."""
    return [
        span("web", "", "SERVER", (0, 8), name="POST /orders"),
        send("send", "web", (4, 6.5)),
        run("run", "send", (386, 412), (0, 380, 0), links=("send",)),
        span("store", "run", "CLIENT", (390, 392), WORKER, db__system__name="redis"),
    ]


# The sentence and the path


def test_the_sentence_says_where_the_time_went(order: list[ReceivedSpan]) -> None:
    assert derived(*order).sentence == "412 ms: 6 web, 380 waiting in `celery`, 26 worker"


def test_in_whatever_order_and_however_often_the_spans_come(order: list[ReceivedSpan]) -> None:
    expected = hops(derived(*order))
    for seed in range(10):
        shuffled = [*order, *order[:2]]
        random.Random(seed).shuffle(shuffled)
        assert hops(derived(*shuffled)) == expected


def test_rows_are_in_the_order_in_which_they_are_drawn(order: list[ReceivedSpan]) -> None:
    rows = rows_of(derived(*order))
    assert [(row["id"], row["depth"], row["parent"]) for row in rows.values()] == [
        ("web", 0, None),
        ("send", 1, "web"),
        ("wait:run", 2, "send"),
        ("run", 2, "send"),
        ("store", 3, "run"),
    ]
    assert rows["send"]["children"] == 2
    assert not rows["store"]["has_children"]
    assert rows["run"]["self_ms"] == 24
    assert {row["service_index"] for row in rows.values()} == {0, 1}


def test_a_wait_is_its_own_row_and_its_parts_are_told_apart() -> None:
    rows = rows_of(derived(send("send", "", (0, 2)), run("run", "send", (100, 110), (60, 30, 8))))
    wait = rows["wait:run"]
    assert (wait["kind"], wait["start_ms"], wait["end_ms"]) == ("wait", 2, 100)
    assert wait["wait"] == {
        **{"scheduled_ms": 60, "queue_ms": 30, "prefetch_ms": 8, "queue": "celery"},
        **{"skewed": False, "skew_ms": None, "live": False, "estimated": False},
        **{"waited_ms": 38, "state": None, "due_ns": None, "expires_ns": None, "knows": True},
    }


def test_the_critical_path_has_no_gap_and_adds_up(order: list[ReceivedSpan]) -> None:
    trace = derived(*order)
    parts = sorted(part for row in rows_of(trace).values() for part in row["critical"])
    assert parts[0][0] == 0
    assert parts[-1][1] == 412
    assert [end for _, end in parts[:-1]] == [start for start, _ in parts[1:]]
    assert hops(trace)["critical_ms"] == {
        **{"web": 6, "scheduled": 0, "queue": 380, "prefetch": 0, "worker": 26},
    }


def test_a_web_side_that_waits_for_the_result_has_the_queue_on_its_path() -> None:
    spans = [
        span("ping", "", "INTERNAL", (0, 40), "client"),
        span("get", "ping", "CLIENT", (1, 39), "client"),
        span("web", "get", "SERVER", (3, 37)),
        send("send", "web", (5, 7)),
        run("run", "send", (10, 30), (0, 3, 0)),
    ]
    trace = derived(*spans)
    assert trace.sentence == "40 ms: 6 client, 11 web, 3 waiting in `celery`, 20 worker"
    kinds = {part["service"]: part["kind"] for part in hops(trace)["parts"] if part["service"]}
    assert kinds == {"client": "client", "shop": "web", "shop-worker": "worker"}


def test_of_several_runs_the_last_to_end_is_on_the_path() -> None:
    spans = [span("web", "", "SERVER", (0, 10))]
    for at, end in enumerate((50, 90, 70)):
        message = {"messaging__message__id": f"m{at}"}
        spans.append(send(f"send{at}", "web", (at, at + 1), **message))
        spans.append(run(f"run{at}", f"send{at}", (20, end), (0, 19 - at, 0), **message))
    rows = rows_of(derived(*spans))
    assert [bool(rows[f"run{at}"]["critical"]) for at in range(3)] == [False, True, False]


def test_a_request_that_answers_late_by_its_clock_is_on_the_path_all_the_same() -> None:
    trace = derived(
        span("get", "", "CLIENT", (0, 10), "client"), span("web", "get", "SERVER", (4, 12))
    )
    assert rows_of(trace)["web"]["critical"] == [[4, 10]]


def test_several_queues_are_told_apart() -> None:
    mail = {"messaging__message__id": "n", "messaging__destination__name": "mail"}
    trace = derived(
        send("send", "", (0, 1)),
        run("run", "send", (101, 110), (0, 100, 0)),
        send("again", "run", (109, 110), **mail),
        run("other", "again", (310, 320), (0, 200, 0), **mail),
    )
    assert trace.sentence == (
        "320 ms: 1 client, 200 waiting in `mail`, 100 waiting in `celery`, 19 worker"
    )


def test_the_legend_rounds_as_the_sentence_does() -> None:
    spans = [
        span("web", "", "SERVER", (0, 15.8)),
        send("send", "web", (14, 15.6)),
        run("run", "send", (758.1, 923.8), (0, 742.5, 0), links=("send",)),
    ]
    trace = derived(*spans)
    said = [int(number) for number in re.findall(r"(\d+) (?:web|waiting|worker)", trace.sentence)]
    assert [part["shown_ms"] for part in hops(trace)["parts"]] == said
    assert sum(said) == 924


@pytest.mark.parametrize(
    ("total", "parts", "expected"),
    [
        (412.4, (6.4, 380.4, 25.6), "412 ms: 6 web, 380 queue, 26 worker"),
        (10.0, (3.334, 3.333, 3.333), "10 ms: 4 web, 3 queue, 3 worker"),
        (3.0, (1.0, 0.02, 1.98), "3.0 ms: 1.0 web, 2.0 worker"),
        (4200, (10, 4100, 90), "4.20 s: 0.01 web, 4.10 queue, 0.09 worker"),
        (63_000, (1_000, 60_000, 2_000), "1 min 3 s: 1 s web, 1 min queue, 2 s worker"),
        (417_000, (6, 327_000, 89_994), "6 min 57 s: 5 min 27 s queue, 1 min 30 s worker"),
        (7_200_000, (0, 7_100_000, 100_000), "2 h: 1 h 58 min queue, 2 min worker"),
        (600_000, (0, 600_000, 0), "10 min queue"),
        (86_400_000, (0, 86_400_000, 0), "24 h queue"),
        (0, (0, 0, 0), "0 ms"),
    ],
)
def test_durations_are_in_one_unit_and_add_up(
    total: float, parts: tuple[float, ...], expected: str
) -> None:
    named = zip(("web", "queue", "worker"), (round(part * 1e6) for part in parts), strict=True)
    assert sentence(round(total * 1e6), list(named)) == expected


# How messages end


def test_a_message_that_nobody_took_yet_waits_so_far() -> None:
    trace = derived(span("web", "", "SERVER", (0, 8)), send("send", "web", (4, 6)), now=3006)
    wait = rows_of(trace)["wait:send"]
    assert (wait["parent"], wait["start_ms"], wait["end_ms"]) == ("send", 6, 3006)
    assert wait["wait"]["live"]
    assert trace.status == "waiting"
    assert trace.sentence == "3.01 s so far: 0.01 web, 3.00 waiting in `celery`"
    alone = derived(send("send", "", (0, 1)), now=201_000)
    assert alone.sentence == "3 min 21 s waiting in `celery` so far"


ETA, EXPIRES = "celery__task__eta", "celery__task__expires"
HOUR = 3_600_000


def iso(at: float) -> str:
    """Return the time of *at* milliseconds after the trace's begin, as Celery writes it."""
    return datetime.fromtimestamp(ms(at) / 1e9, UTC).isoformat()


@pytest.mark.parametrize(
    ("now", "facts", "state", "waited"),
    [
        (59_000, {}, "waiting", 58_999),
        (60_001, {}, "stuck", 60_000),
        (48 * HOUR, {}, "stuck", 48 * HOUR - 1),
        (HOUR - 1, {ETA: iso(HOUR)}, "scheduled", 0),
        (HOUR + 5, {ETA: iso(HOUR)}, "overdue", 5),
        (HOUR + 60_000, {ETA: iso(HOUR)}, "stuck", 60_000),
        (8_999, {EXPIRES: iso(9_000)}, "waiting", 8_998),
        (9_000, {EXPIRES: iso(9_000)}, "expired", 8_999),
        (48 * HOUR, {EXPIRES: iso(9_000)}, "expired", 8_999),
        (48 * HOUR, {EXPIRES: iso(9_000), ETA: iso(HOUR)}, "expired", 0),
    ],
)
def test_what_a_message_is_that_nobody_took(
    now: float, facts: dict[str, str], state: str, waited: float
) -> None:
    trace = derived(send("send", "", (0, 1), **facts), now=now)
    assert (trace.status, trace.live_states) == (state, {state: 1})
    wait = rows_of(trace)["wait:send"]["wait"]
    assert (wait["state"], wait["waited_ms"], wait["live"]) == (state, waited, True)
    assert ("so far" in trace.sentence) == (state != "expired")


@pytest.mark.parametrize("now", [59_000, 48 * HOUR])
def test_a_sender_that_records_no_countdown_is_never_known_to_be_stuck(now: float) -> None:
    trace = derived(span("send", "", "PRODUCER", (0, 1), name="apply_async/charge"), now=now)
    assert trace.status == "waiting"
    assert not rows_of(trace)["wait:send"]["wait"]["knows"]
    [problem] = hops(trace)["problems"]
    assert "The producer does not record countdowns" in problem


@pytest.mark.parametrize("value", ["soon", 7, None, "9999-12-31T23:59:59+00:00", "0001-01-01"])
def test_a_countdown_that_is_odd(value: object) -> None:
    trace = derived(send("send", "", (0, 1), **{ETA: value}), now=100)
    assert trace.status in ("waiting", "overdue", "scheduled")


def test_what_is_stuck_says_where_to_look() -> None:
    sends = [send(f"s{at}", "", (0, at), messaging__message__id=f"{at}") for at in (1, 2)]
    assert hops(derived(*sends, now=48 * HOUR))["problems"] == [
        "2 messages for charge have been stuck in `celery` for 2 d. "
        "Check that a worker consumes from this queue. A task that still runs counts as waiting."
    ]


def test_it_says_when_it_will_look_different() -> None:
    lone = send("send", "", (0, 1), **{ETA: iso(HOUR), EXPIRES: iso(2 * HOUR)})
    times = [derived(lone, now=now).changes_ns for now in (5, HOUR, HOUR + 60_000, 2 * HOUR)]
    assert times == [ms(HOUR), ms(HOUR + 60_000), ms(2 * HOUR), None]
    assert derived(lone, now=5).revisit_ns is None
    assert derived(span("a", "gone", "SERVER", (0, 1)), now=5).revisit_ns == ms(15_001)
    assert derived(span("a", "", "SERVER", (0, 1)), now=5).revisit_ns is None


def test_a_revoked_message_is_not_ok() -> None:
    trace = derived(send("send", "", (0, 1)), run("run", "send", (9, 9), (0, 8, 0), "REVOKED"))
    assert trace.status == "revoked"


def test_what_waited_is_queue_and_prefetch_off_the_critical_path_too() -> None:
    spans = [span("web", "", "SERVER", (0, 10))]
    for at, waited in enumerate(((50, 20, 10), (0, 80, 5))):
        message = {"messaging__message__id": f"m{at}"}
        spans.append(send(f"send{at}", "web", (at, at + 1), **message))
        spans.append(run(f"run{at}", f"send{at}", (90, 100 + at), waited, **message))
    row = summarize(derived(*spans)).row
    assert (row["wait_ms"], row["wait_sum_ms"], row["scheduled_ms"]) == (85, 115, 50)


def test_the_worker_of_a_clock_that_is_behind_is_on_the_path() -> None:
    trace = derived(send("send", "", (100, 102)), run("run", "send", (40, 60), None))
    assert trace.sentence == "62 ms: 2 client, 20 worker, 40 unaccounted for"


def test_sentence_bar_and_legend_have_one_set_of_numbers(order: list[ReceivedSpan]) -> None:
    parts = hops(derived(*order))["parts"]
    assert [(p["kind"], p["ms"], p["service_index"]) for p in parts] == [
        *[("web", 6, 0), ("waiting", 380, None), ("worker", 26, 1)],
    ]


def test_a_message_whose_publish_failed_does_not_wait() -> None:
    trace = derived(send("send", "", (0, 1), error="OSError: gone"), now=100)
    assert (trace.status, trace.live) == ("error", [])


def test_a_message_taken_in_another_trace_does_not_wait() -> None:
    taken = in_other_trace(run("run", "", (2101, 2110), None))
    trace = derived(send("send", "", (0, 1)), now=9999, runs={"send": [taken]})
    assert (trace.live, trace.status) == ([], "ok")
    assert trace.sentence == "2.10 s waiting in `celery`"
    row = rows_of(trace)["wait:run:send"]
    assert (row["parent"], row["open"], row["wait"]["waited_ms"]) == ("send", "send", 2100)
    assert row["link"] == {
        **{"relation": "picked up by", "trace_id": "f" * 32, "span_id": "run"},
        **{"name": "process charge", "service": WORKER, "later_ms": 2100},
    }
    assert hops(trace)["linked"] == [row["link"]]


def test_each_message_that_one_run_of_another_trace_took_has_a_row() -> None:
    sends = [send(f"send{n}", "", (n, n + 1), messaging__message__id=f"m{n}") for n in range(3)]
    batch = in_other_trace(run("batch", "", (100, 110), None))
    trace = derived(*sends, runs={s.span_id: [batch] for s in sends})
    rows = [row for row in hops(trace)["rows"] if row["kind"] == "wait"]
    assert [(row["parent"], row["wait"]["waited_ms"]) for row in rows] == [
        *[("send0", 99), ("send1", 98), ("send2", 97)],
    ]
    assert len({row["id"] for row in rows}) == 3


def test_what_outlives_a_deep_stack_of_calls_is_found_in_linear_time() -> None:
    def cpu(spans: list[ReceivedSpan]) -> float:
        began = time.process_time()
        path = derived(*spans).path
        assert path[0][0] is not None
        return time.process_time() - began

    half = 10_000
    calls = [
        span(f"c{n}", f"c{n - 1}" if n else "", "INTERNAL", (n, 90_000 - n)) for n in range(half)
    ]

    def called(under: str) -> list[ReceivedSpan]:
        return [span(f"l{n}", under, "CLIENT", (half, 90_001 + n)) for n in range(half)]

    assert cpu([*calls, *called(f"c{half - 1}")]) < 5 * cpu([*calls, *called("c0")])


def test_of_many_attempts_the_earlier_are_one_row() -> None:
    spans = [send("send", "", (0, 1))]
    for at in range(1, 6):
        spans.append(run(f"try{at}", "send", (at * 10, at * 10 + 5), celery__task__retries=at - 1))
    rows = rows_of(derived(*spans))
    group = rows["attempts:try1"]
    assert (group["name"], group["parent"], group["children"]) == (
        *("4 earlier attempts", "send", 8),
    )
    assert (group["start_ms"], group["end_ms"]) == (10, 45)
    assert rows["try4"]["parent"] == "attempts:try1"
    assert (rows["try5"]["parent"], rows["try5"]["attempt"]) == ("send", 5)


def test_a_run_in_a_trace_of_its_own_has_its_wait_before_it() -> None:
    theirs = in_other_trace(send("send", "", (0, 2)))
    alone = replace(run("run", "", (100, 110), None), links=(Link("f" * 32, "send", {}),))
    trace = derived(alone, sends={"send": theirs})
    assert [row["id"] for row in hops(trace)["rows"]] == ["wait:run", "run"]
    assert trace.sentence == "108 ms: 98 waiting in `celery`, 10 worker"
    known = derived(replace(alone, attributes=run("r", "", (0, 0), (0, 40, 5)).attributes))
    assert known.sentence == ("55 ms: 45 waiting in `celery`, 10 worker")


def retried() -> list[ReceivedSpan]:
    again = {"kind": "CLIENT", "service": WORKER, "links": ("send",)}
    return [
        send("send", "", (0, 2)),
        run("one", "send", (10, 20), (0, 8, 0), "RETRY", error="OSError: no"),
        send("resend", "one", (18, 19), celery__task__retries=1, **again),
        run("two", "send", (119, 130), (99, 1, 0), celery__task__retries=1, links=("send", "one")),
    ]


def test_what_is_retried_over_and_over_is_a_problem() -> None:
    spans = retried()[:3]
    problem = "charge in `celery` was retried {} without success."
    assert hops(derived(*spans))["problems"] == [
        problem.format("once") + " The last error: OSError: no"
    ]
    more = {"service": WORKER, "celery__task__retries": 2}
    spans += [
        run("two", "send", (119, 130), (99, 1, 0), "RETRY", celery__task__retries=1),
        send("again", "two", (128, 129), kind="CLIENT", links=("send",), **more),
    ]
    assert hops(derived(*spans, now=500))["problems"] == [problem.format("2 times")]
    done = run("three", "send", (219, 230), (99, 1, 0), celery__task__retries=2)
    assert hops(derived(*spans, done))["problems"] == []


def test_retries_are_attempts_under_one_send() -> None:
    trace = derived(*retried())
    rows = rows_of(trace)
    assert [(i, rows[i]["parent"], rows[i]["attempt"]) for i in ("one", "two")] == [
        ("one", "send", 1),
        ("two", "send", 2),
    ]
    assert {"from": "two", "to": "one", "kind": "retry"} in hops(trace)["links"]
    assert rows["one"]["message"] == "OSError: no"
    assert trace.status == "ok"
    assert trace.sentence == "130 ms: 2 client, 99 scheduled, 9 waiting in `celery`, 20 worker"


def test_a_retry_that_nobody_took_yet_waits_where_its_run_will_be() -> None:
    trace = derived(*retried()[:3], now=500)
    rows = rows_of(trace)
    assert rows["wait:resend"]["parent"] == "send"
    assert rows["wait:resend"]["end_ms"] == 500


def test_a_retry_that_fails_for_good_is_an_error() -> None:
    spans = retried()
    spans[3] = replace(spans[3], status="ERROR")
    assert derived(*spans).status == "error"


def test_attempts_below_each_other_end_as_the_last_one_does() -> None:
    """As contrib for Celery draws them: a run publishes its retry, and the retry is below it."""
    first = [
        send("send", "", (0, 1)),
        run("one", "send", (5, 9), None, "RETRY", error="OSError: no"),
        send("again", "one", (7, 8)),
    ]
    last = run("two", "again", (20, 30), None)
    assert derived(*first, last).status == "ok"
    trace = derived(*first, replace(last, status="ERROR"))
    assert trace.status == "error"
    assert hops(trace)["error"]["id"] == "two"


def test_a_retry_does_not_make_good_another_task() -> None:
    trace = derived(
        send("send", "", (0, 1)),
        run("one", "send", (5, 9), state="RETRY"),
        send("other", "one", (6, 7), messaging__message__id="o", celery__task__name="mail"),
        run("mail", "other", (10, 11), error="OSError: no", messaging__message__id="o"),
        run("two", "send", (20, 30), celery__task__retries=1),
    )
    assert trace.status == "error"


def test_several_consumers_of_one_message_are_no_attempts() -> None:
    spans = [
        send("send", "", (0, 1)),
        run("one", "send", (2, 3), messaging__consumer__group__name="a"),
        run("two", "send", (2, 3), messaging__consumer__group__name="b"),
    ]
    rows = rows_of(derived(*spans))
    assert rows["one"]["attempt"] is rows["two"]["attempt"] is None


def test_the_body_of_a_chord_is_joined_to_its_headers() -> None:
    spans = [span("web", "", "SERVER", (0, 5))]
    for at in (1, 2):
        message = {"messaging__message__id": f"h{at}"}
        spans.append(send(f"send{at}", "web", (at, at + 1), **message))
        spans.append(run(f"head{at}", f"send{at}", (10, 20 + at), (0, 5, 0), **message))
    body = {"messaging__message__id": "body", "celery__task__name": "sum"}
    spans.append(send("join", "head2", (21, 22), service=WORKER, **body))
    spans.append(run("body", "join", (30, 40), (0, 8, 0), links=("join", "head1", "head2"), **body))
    result = hops(derived(*spans))
    assert result["links"] == [
        {"from": "body", "to": "head1", "kind": "chord"},
        {"from": "body", "to": "head2", "kind": "chord"},
    ]
    assert {row["attempt"] for row in result["rows"]} == {None}


@pytest.mark.parametrize("state", ["EXPIRED", "REJECTED", "UNKNOWN"])
def test_a_message_that_never_ran_is_an_error_and_says_so(state: str) -> None:
    trace = derived(send("send", "", (0, 1)), run("run", "send", (9, 9), (0, 8, 0), state))
    assert trace.status == "error"
    assert rows_of(trace)["run"]["state"] == state
    [problem] = hops(trace)["problems"]
    assert problem.startswith("1 message for charge in `celery` did not run: ")
    assert trace.sentence == "9.0 ms: 1.0 client, 8.0 waiting in `celery`"


def test_an_eager_run_has_no_wait() -> None:
    trace = derived(send("send", "", (0, 9)), run("run", "send", (1, 8), None, service=WEB))
    assert list(rows_of(trace)) == ["send", "run"]


# Missing spans, and clocks


def test_a_parent_that_may_still_come_is_no_problem_yet() -> None:
    trace = derived(span("web", "gone", "SERVER", (0, 8)), now=100)
    assert trace.status == "ok"
    assert rows_of(trace)["web"]["missing_parent"] == "The parent has not arrived yet."


@pytest.mark.parametrize(
    ("orphan", "flags", "reason"),
    [
        (run("run", "gone", (0, 1)), 1, "The producer exports to another place"),
        (span("web", "gone", "SERVER", (0, 1)), 0x301, "span of the caller did not arrive"),
        (span("sql", "gone", "CLIENT", (0, 1)), 0x101, "did not arrive from the same process"),
        (span("sql", "gone", "CLIENT", (0, 1)), 0x300, "did not arrive from another process"),
    ],
)
def test_a_parent_that_never_came_is_marked_with_the_likely_reason(
    orphan: ReceivedSpan, flags: int, reason: str
) -> None:
    trace = derived(replace(orphan, flags=flags))
    assert trace.status == "broken"
    row = rows_of(trace)[orphan.span_id]
    assert reason in row["missing_parent"]
    # Exported is sampled, also if its exporter leaves out the flags.
    assert row["flags"] == 1
    [problem] = hops(trace)["problems"]
    assert problem.startswith(f"{orphan.name} ({orphan.service}): ")
    assert reason in problem


def test_parts_that_do_not_hang_together_are_accounted_for_as_such() -> None:
    trace = derived(
        span("a", "gone", "SERVER", (0, 10)), span("b", "lost", "SERVER", (50, 100), WORKER)
    )
    assert trace.sentence == "100 ms: 60 web, 40 unaccounted for"


def test_clocks_that_disagree_are_shown_and_no_wait_is_negative() -> None:
    trace = derived(send("send", "", (100, 102)), run("run", "send", (40, 60), None))
    wait = rows_of(trace)["wait:run"]
    assert wait["start_ms"] == wait["end_ms"]
    assert (wait["wait"]["skewed"], wait["wait"]["skew_ms"]) == (True, 60)
    assert wait["wait"]["queue_ms"] == 0
    assert "The clock of shop-worker is at least 60 ms behind that of shop" in "".join(
        hops(trace)["problems"]
    )


def test_skew_that_the_worker_saw_is_shown() -> None:
    trace = derived(send("send", "", (0, 2)), run("run", "send", (5, 9), celery__wait__skewed=True))
    assert rows_of(trace)["wait:run"]["wait"]["skewed"]


@pytest.mark.parametrize(
    ("later", "facts", "state", "waited"),
    [
        (5_000, {}, "waiting", 5_000),
        (60_000, {}, "stuck", 60_000),
        (5_000, {"celery__task__eta": iso(10_000)}, "scheduled", 0),
        (12_000, {"celery__task__eta": iso(10_000)}, "overdue", 2_000),
    ],
)
def test_a_producer_whose_clock_is_ahead_does_not_hide_that_its_message_waits(
    later: float, facts: dict[str, str], state: str, waited: float
) -> None:
    ahead = 300_000.0
    sent = send("send", "", (ahead, ahead + 2), **facts)
    trace = derived(sent, arrived=2, now=2 + later)
    row = rows_of(trace)["wait:send"]
    wait = row["wait"]
    waited = min(waited, later)
    assert (trace.status, wait["waited_ms"] // 10 * 10) == (state, waited)
    assert (wait["skewed"], wait["skew_ms"]) == (True, ahead)
    assert row["start_ms"] == 2  # drawn after its send, by the producer's clock
    assert row["end_ms"] == 2 + later
    [problem, *_] = [it for it in hops(trace)["problems"] if "ahead" in it]
    assert problem.startswith("The clock of shop is at least 5 min ahead of the viewer's")


def test_a_worker_whose_clock_is_ahead_is_a_problem() -> None:
    ahead = 300_000.0
    late = run("run", "send", (ahead + 5, ahead + 9), (0, ahead, 0))
    trace = derived(send("send", "", (0, 2)), late, arrived=9)
    assert [it for it in hops(trace)["problems"] if "shop-worker is at least 5 min ahead" in it]


def test_spans_in_a_circle_are_all_there_once() -> None:
    trace = derived(span("a", "b", "SERVER", (0, 1)), span("b", "a", "CLIENT", (0, 2)))
    assert sorted(rows_of(trace)) == ["a", "b"]
    assert trace.status == "broken"
    assert "ancestors" in "".join(hops(trace)["problems"])


@pytest.mark.parametrize("value", ["soon", True, -1, float("nan"), float("inf"), 1e300, [1], None])
def test_a_wait_that_is_none_is_estimated(value: object) -> None:
    odd = dict.fromkeys(("celery__wait__queue", "celery__wait__scheduled"), value)
    trace = derived(send("send", "", (0, 2)), run("run", "send", (10, 20), None, **odd))
    wait = rows_of(trace)["wait:run"]["wait"]
    assert (wait["queue_ms"], wait["estimated"]) == (8, True)


def test_names_that_are_no_text_are_no_names() -> None:
    odd = span("a", "", "CONSUMER", (0, 1), celery__task__state=7, messaging__destination__name=[1])
    row = rows_of(derived(odd))["a"]
    assert row["state"] is None


# Others' spans


def test_contribs_names_and_waits_from_times() -> None:
    trace = derived(
        span("web", "", "SERVER", (0, 10)),
        span("send", "web", "PRODUCER", (2, 4), name="apply_async/shop.charge"),
        span(
            *("run", "send", "CONSUMER", (30, 50), WORKER, "run/shop.charge"),
            messaging__destination="celery",
            celery__state="SUCCESS",
        ),
    )
    wait = rows_of(trace)["wait:run"]["wait"]
    assert (wait["queue_ms"], wait["estimated"], wait["queue"]) == (26, True, "celery")
    assert rows_of(trace)["run"]["state"] == "SUCCESS"
    assert trace.sentence == "50 ms: 4 web, 26 waiting in `celery`, 20 worker"


def test_sentrys_names_and_latency() -> None:
    trace = derived(
        span("send", "", "INTERNAL", (0, 1), name="queue.publish"),
        span(
            *("run", "send", "INTERNAL", (50, 60), WORKER, "queue.process"),
            messaging__message__receive__latency=45.0,
            messaging__destination__name="celery",
        ),
    )
    wait = rows_of(trace)["wait:run"]["wait"]
    assert (wait["queue_ms"], wait["estimated"]) == (45, False)


def test_kafka_by_the_conventions() -> None:
    kafka = {"messaging__system": "kafka", "messaging__destination__name": "orders"}
    trace = derived(
        span("send", "", "PRODUCER", (0, 1), messaging__operation__type="publish", **kafka),
        span("poll", "", "CLIENT", (8, 9), WORKER, messaging__operation__type="receive", **kafka),
        span(
            *("run", "poll", "CONSUMER", (10, 20), WORKER),
            links=("send",),
            messaging__operation="process",
            **kafka,
        ),
    )
    assert rows_of(trace)["wait:run"]["wait"]["queue_ms"] == 9
    assert not trace.live
    assert trace.sentence == "20 ms: 1 client, 9 waiting in `orders`, 10 worker"


RECEIVE = {"messaging__operation__type": "receive", "celery__task__state": ""}


def test_a_message_that_is_only_received_was_taken() -> None:
    sends = [send(f"send{n}", "", (n, n), messaging__message__id=f"m{n}") for n in range(2)]
    names = ("send0", "send1")
    took = run("took", "", (50, 60), None, links=names, messaging__message__id="", **RECEIVE)
    trace = derived(*sends, took)
    assert (trace.live, trace.status) == ([], "ok")
    # A batch is drawn with its longest wait, and all of its waits are counted.
    assert trace.waits["took"].waited_ns == 50 * 10**6
    assert [wait.waited_ns for wait in trace.messages_of(took)] == [50 * 10**6, 49 * 10**6]


def test_what_is_received_and_then_processed_has_run_once() -> None:
    sent = send("send", "", (0, 0))
    took = run("took", "", (50, 60), None, links=("send",), **RECEIVE)
    ran = run("run", "took", (51, 59), None, links=("send",))
    trace = derived(sent, took, ran)
    assert [r.span_id for r in trace.runs] == ["run"]
    # One of a batch was received and is not processed yet.
    other = send("other", "", (0, 0), messaging__message__id="n")
    assert (
        derived(sent, other, replace(took, links=(*took.links, Link(TRACE, "other", {}))), ran).live
        == []
    )


def test_a_consumer_that_polled_before_the_message_was_sent_has_no_skew() -> None:
    sent = send("send", "", (30, 31))
    took = run("took", "", (0, 60), None, links=("send",), **RECEIVE)
    wait = derived(sent, took).waits["took"]
    assert (wait.waited_ns, wait.skewed) == (0, False)


def test_a_batch_names_every_trace_that_its_messages_came_from() -> None:
    sends = {
        name: replace(send(name, "", (0, n)), trace_id=f"{n:032x}")
        for n, name in enumerate(("one", "two"), 1)
    }
    took = run("took", "", (50, 60), None, links=())
    links = tuple(Link(s.trace_id, s.span_id, {}) for s in sends.values())
    trace = derived(replace(took, links=links), sends=sends)
    linked = [(link["relation"], link["trace_id"]) for link in hops(trace)["linked"]]
    assert linked == [("sent by", f"{n:032x}") for n in (1, 2)]


def test_a_single_earlier_attempt_is_not_folded() -> None:
    spans = [send("send", "", (0, 1)), run("one", "send", (2, 3), state="RETRY")]
    spans.append(send("again", "one", (2, 3), celery__task__retries=1))
    spans += [
        run(f"run{n}", "again", (10 * n, 10 * n + 1), celery__task__retries=n) for n in (1, 2)
    ]
    assert [row["kind"] for row in rows_of(derived(*spans)).values()].count("attempts") == 0


def test_a_countdown_that_was_over_before_the_send_is_not_overdue() -> None:
    sent = send("send", "", (0, 1), celery__task__eta="2001-01-01T00:00:00Z")
    assert derived(sent, now=1000).live[0].state == "waiting"


def test_a_consumer_that_is_no_messaging_span_has_taken_the_message() -> None:
    trace = derived(
        span("send", "", "PRODUCER", (0, 1)), span("job", "send", "INTERNAL", (5, 9), WORKER)
    )
    assert not trace.live


# Sizes


def chain(length: int) -> Trace:
    """Return a task that published itself *length* times."""
    spans, parent = [], ""
    for at in range(length):
        message = {"messaging__message__id": str(at)}
        spans.append(send(f"s{at}", parent, (at * 10, at * 10 + 1), **message))
        spans.append(run(f"r{at}", f"s{at}", (at * 10 + 5, at * 10 + 12), (0, 4, 0), **message))
        parent = f"r{at}"
    return derived(*spans, now=length * 10 + LATER)


LATER = 1000


def test_a_task_that_publishes_itself_again_and_again() -> None:
    trace = chain(5000)
    result = hops(trace)
    assert len(result["rows"]) == 15_000
    assert result["rows"][-1]["depth"] == 9999
    total = sum(result["critical_ms"].values())
    assert total == pytest.approx(result["duration_ms"])


def test_a_trace_id_is_not_needed_to_be_empty() -> None:
    assert hops(Trace([], ms(0)))["rows"] == []
    assert derived(span("a", "", "SERVER", (0, 1))).spans[0].trace_id == TRACE
