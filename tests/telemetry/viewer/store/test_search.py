"""Search traces in the database, without a server: the traces found, and their rows."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from telemetry.otlp.decode import Link, ReceivedSpan
from telemetry.viewer.store import read
from telemetry.viewer.store.database import MEMORY, Database
from telemetry.viewer.store.search import Search, find
from telemetry.viewer.store.search_trace import spans_like
from telemetry.viewer.store.suggest import suggest
from telemetry.viewer.store.trace_store import Bounds, Store

from ..exports import export, shown
from ..spans import hops, order, send

HOUR = 3600


class Traces:
    """A store in memory. It names the traces found by the first digit of their id."""

    def __init__(self) -> None:
        self.store = Store(Database(MEMORY))

    def add(self, *traces: list[ReceivedSpan]) -> None:
        """Store *traces*, and wait until they can be found."""
        for spans in traces:
            self.store.take(export(spans))
        assert self.store.wait_until_written(30) == ""
        soon = "SELECT count(*) FROM traces WHERE revisit_ns < ?"
        while True:  # a trace is summarized a moment after its last span
            with self.store.database.reading() as db:
                if db.execute(soon, (time.time_ns() + 2 * 10**9,)).fetchone() == (0,):
                    return
            time.sleep(0.01)

    def rows(self, **query: Any) -> list[dict[str, Any]]:
        search = Search.parse({key: str(value) for key, value in query.items()})
        with self.store.database.reading() as db:
            rows: list[dict[str, Any]] = find(db, search)["traces"]
        return rows

    def ids(self, **query: Any) -> str:
        return "".join(row["trace_id"][0] for row in self.rows(**query))


@pytest.fixture
def traces() -> Iterator[Traces]:
    found = Traces()
    yield found
    found.store.close()


def at(seconds: float) -> str:
    """Return the time that is *seconds* from now, as Celery writes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def untaken(letter: str, ago: float, **facts: Any) -> list[ReceivedSpan]:
    """Return a request that sent a message *ago* seconds ago. No worker has taken it."""
    web, sent, *_ = order(letter * 32, -ago * 1e3)
    return [web, replace(sent, attributes={**sent.attributes, **facts})]


ETA, EXPIRES = "celery.task.eta", "celery.task.expires"


@pytest.fixture
def messages(traces: Traces) -> Traces:
    """Traces whose messages are in each of the states, and one that is done."""
    traces.add(
        order("a" * 32),
        untaken("b", 2 * HOUR),
        untaken("c", 5),
        untaken("d", 2 * HOUR, **{ETA: at(HOUR)}),
        untaken("e", 2 * HOUR, **{ETA: at(-30)}),
        untaken("f", 2 * HOUR, **{EXPIRES: at(-HOUR)}),
    )
    return traces


def test_the_newest_start_is_first_whenever_a_trace_arrives(traces: Traces) -> None:
    traces.add(order("a" * 32, -2000), order("b" * 32, -4000), order("c" * 32, -1000))
    assert traces.ids() == traces.ids(q="charge") == traces.ids(task="charge") == "cab"
    assert traces.ids(sort="received") == traces.ids(sort="received", task="charge") == "cba"
    # A span that started before the others arrives last.
    [web, *_] = order("c" * 32, -9000)
    traces.add([replace(web, span_id="client", name="GET")])
    assert traces.ids() == traces.ids(q="charge") == traces.ids(task="charge") == "abc"
    # It was active in the last eight seconds.
    assert traces.ids(since_s=8) == "abc"


def test_pages_have_each_trace_once_also_if_all_start_at_once(traces: Traces) -> None:
    spans = order("1" * 32, paid=True)
    letters = "abcdef0"
    ids = (letter.ljust(32, "1") for letter in letters)
    traces.add(*([replace(span, trace_id=trace_id) for span in spans] for trace_id in ids))

    def pages(**asked: str) -> Iterator[str]:
        before = ""
        while before is not None:
            with traces.store.database.reading() as db:
                page = find(db, Search.parse({**asked, "before": before, "limit": "2"}))
            yield "".join(row["trace_id"][0] for row in page["traces"])
            before = page["next"]

    for sort in ("recent", "received", "duration", "wait"):
        for text in ("", "charge", "paid=true"):
            assert [*pages(sort=sort, q=text)] == ["0f", "ed", "cb", "a"]


def test_a_task_id_without_dashes_is_found_by_its_beginning(traces: Traces) -> None:
    task = TASK.replace("-", "")
    traces.add(order("a" * 32, messaging__message__id=task), order("b" * 32))
    for length in (8, 12, 16, 20, 32):
        assert traces.ids(q=task[:length]) == "a"
        assert traces.ids(q=task[:length].upper()) == "a"
    assert traces.ids(q=task[:7]) == ""


def test_messages_without_a_name_are_found(traces: Traces) -> None:
    """The message of each trace lacks one of the names; the last has two messages."""

    def without(letter: str, name: str) -> list[ReceivedSpan]:
        web, sent = untaken(letter, 2 * HOUR, **{"messaging.system": "redis"})
        known = {key: value for key, value in sent.attributes.items() if key != name}
        return [web, replace(sent, attributes=known)]

    queue, task, broker = "messaging.destination.name", "celery.task.name", "messaging.system"
    one_each = [without("a", queue), without("b", task), without("c", broker)]
    both, (_, later) = without("d", ""), without("d", queue)
    later = replace(later, span_id="later", attributes=later.attributes | {ETA: at(HOUR)})
    traces.add(*one_each, [*both, later])
    assert traces.ids(q='queue:""') == "da"
    assert traces.ids(q='task:""') == "b"
    assert traces.ids(q='broker:""') == "c"
    assert traces.ids(q='queue:"" task:""') == ""
    assert traces.ids(q='queue:""', status="scheduled") == "d"
    assert traces.ids(q='queue:"" status:stuck') == "a"
    assert traces.ids(q='queue:""', task="charge", broker="redis") == "da"
    assert traces.ids(q='queue:"celery"') == "dcb"
    with traces.store.database.reading() as db:
        first = suggest(db, "queue:")["suggestions"][0]
        assert first == {"text": 'queue:""', "kind": "no queue name"}
        assert 'route:""' not in [found["text"] for found in suggest(db, "route:")["suggestions"]]


def test_waiting_is_what_a_worker_could_take_and_stuck_a_part_of_it(messages: Traces) -> None:
    assert messages.ids(status="stuck") == "b"
    assert messages.ids(status="waiting") == "ceb"
    assert messages.ids(status="scheduled") == "d"
    assert messages.ids(status="overdue") == "e"
    assert messages.ids(status="expired") == "f"
    assert messages.ids(status="ok") == "a"
    assert [row["status"] for row in messages.rows()] == [
        *("ok", "waiting", "expired", "overdue", "scheduled", "stuck")
    ]


def test_a_wait_that_goes_on_is_found_and_sorted_by_what_it_is_now(messages: Traces) -> None:
    assert messages.ids(min_wait_ms=1.5 * HOUR * 1e3) == "b"
    assert messages.ids(min_wait_ms=0.5 * HOUR * 1e3) == "fb"
    assert messages.ids(sort="wait") == "bfecad"
    assert messages.ids(min_ms=1.5 * HOUR * 1e3) == "edb"
    waits = [row["wait_ms"] for row in messages.rows(sort="wait")]
    assert waits == sorted(waits, reverse=True)
    assert waits[0] >= 2 * HOUR * 1e3
    assert waits[-1] == 0


def test_a_message_that_is_taken_waits_no_longer(traces: Traces) -> None:
    traces.add(untaken("b", 2 * HOUR))
    assert traces.ids(status="stuck") == "b"
    traces.add(order("b" * 32, -2 * HOUR * 1e3)[2:])
    assert traces.ids(status="stuck") == traces.ids(status="waiting") == ""
    assert traces.ids(status="ok") == "b"


def test_a_wait_for_a_run_in_another_trace_is_found_and_sorted_too(traces: Traces) -> None:
    web, sent, ran, _ = order("b" * 32)
    link = Link("b" * 32, "send", {})
    alone = replace(ran, trace_id="c" * 32, parent_id="", links=(link,))
    traces.add(order("a" * 32)[:1], [web, sent], [alone])
    waits = {row["trace_id"][0]: row["wait_ms"] for row in traces.rows()}
    assert waits["b"] == waits["c"] == pytest.approx(380)
    assert set(traces.ids(q="wait>300ms")) == {"b", "c"}
    assert traces.ids(sort="wait")[2] == "a"


def test_a_trace_with_an_error_shows_what_is_stuck_in_it_too(traces: Traces) -> None:
    web, sent = untaken("b", 2 * HOUR)
    traces.add([replace(web, status="ERROR"), sent])
    [row] = traces.rows(status="stuck")
    assert (row["status"], row["live"]) == ("error", {"stuck": 1})
    assert traces.ids(status="error") == "b"


def test_the_waits_of_a_trace_with_many_spans_are_those_of_now(traces: Traces) -> None:
    web, sent = untaken("b", 2 * HOUR)
    many = [
        replace(send(f"s{number}", "web", (0, 0)), **_of(sent))
        for number in range(2100)
    ]  # fmt: skip
    traces.add([web, *many])
    [row] = traces.rows()
    assert (row["status"], row["live"]) == ("stuck", {"stuck": 2100})
    assert row["wait_ms"] >= 2 * HOUR * 1e3
    assert row["sentence"] == "2 h so far"


def _of(span: ReceivedSpan) -> dict[str, Any]:
    return {"trace_id": span.trace_id, "start_ns": span.start_ns, "end_ns": span.end_ns}


TASK = "5f0c2b7e-6a0e-4d0e-9a55-0f7f2d3b6c11"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "cba"),
        ("CHARGE", "ca"),
        ("orders", "cba"),
        ('"process charge"', "ca"),
        ("report", "b"),
        ("report charge", ""),
        ("nothing-like-it", ""),
        ("a" * 32, "a"),
        ("a" * 8, "a"),
        ("add", ""),
        ("trace:b", "b"),
        (shown("run"), "cba"),
        ("f" * 16, ""),
        (f"00-{'c' * 32}-{shown('run')}-01", "c"),
        (TASK, "b"),
        (TASK.upper(), "b"),
        (TASK[:8], "b"),
        (TASK[:8].upper(), "b"),
        (TASK[:9], "b"),
        (TASK[:13], "b"),
        (TASK[:-1], "b"),
        (TASK[:7], ""),
        (TASK[9:], ""),
        ("5f0c2b7f", ""),
        ("order-42", "c"),
        ("id:order-42", "c"),
        ("id:order-4", ""),
        ("task:REP", "b"),
        ('task:"rep"', ""),
        ('task:"report"', "b"),
        ("queue:cel", "ca"),
        ("service:worker", "cba"),
        ("route:/orders", "cba"),
        ("status:error", "b"),
        ("status:success", "cba"),
        ("status:stuck", ""),
        ("wait>300ms", "cba"),
        ("wait>0.5s", ""),
        ("wait<0.5", "cba"),
        ("duration>=400ms duration<1s", "cba"),
        ("user.id=7", "a"),
        ("user.id=8", ""),
        ("paid=true", "a"),
        ("tags=gift", "a"),
        ("ratio=0.5", "a"),
        ("exception.type=OSError", "b"),
        ("oserr", "b"),
        ('call:"shop → slow"', "b"),
        ('call:"slow → shop-worker"', "b"),
        ("call:worker", "cba"),
        ("exception:OS", "b"),
        ('exception:"OS"', ""),
        ("service.name=shop-worker", "cba"),
        ("db.system.name=redis", "cba"),
        ("service.name=shop-worker user.id=7 task:charge wait>300ms", "a"),
    ],
)
def test_one_field_finds_all_of_it(searched: Traces, text: str, found: str) -> None:
    assert searched.ids(q=text) == found
    assert set(searched.ids(q=text, sort="wait")) == set(found)


@pytest.fixture(scope="module")
def searched() -> Iterator[Traces]:
    """Three orders: one with attributes, one that failed in another queue, one with an id."""
    facts = {"user__id": 7, "paid": True, "tags": ["gift", "eu"], "ratio": 0.5}
    failed = order("b" * 32, -1000, error="OSError: gone", messaging__message__id=TASK)
    report = {"celery.task.name": "report", "messaging.destination.name": "slow"}
    for at in (1, 2):
        attributes = {**failed[at].attributes, **report}
        name = failed[at].name.replace("charge", "report")
        failed[at] = replace(failed[at], name=name, attributes=attributes)
    last = order("c" * 32, 0, messaging__message__id="order-42")
    orders = [order("a" * 32, -2000, **facts), failed, last]
    found = Traces()
    try:
        found.add(*orders)
        yield found
    finally:
        found.store.close()


def test_a_trace_with_more_attributes_than_its_filter_holds(traces: Traces) -> None:
    many = {f"key{number}": number for number in range(2000)}
    traces.add(order("a" * 32, **many), order("b" * 32))
    assert traces.ids(q="key1999=1999") == "a"
    assert traces.ids(q="key1999=7") == ""


def test_a_trace_with_more_spans_than_are_drawn_says_so_and_is_exported_whole(
    traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spans that are drawn have their parents: the root has the largest id."""
    ids = {"web": "z", "send": "a", "run": "b", "store": "c"}
    spans = [
        replace(span, span_id=ids[span.span_id], parent_id=ids.get(span.parent_id, ""), links=())
        for span in order("a" * 32)
    ]
    traces.add(spans)
    monkeypatch.setattr(read, "MOST_SPANS", 3)
    monkeypatch.setattr(read, "MOST_ANCESTORS", 1)
    with traces.store.database.reading() as db:
        trace = read.read_trace(db, 1, time.time_ns())
        answer = hops(trace, read.count_spans(db, 1))
        assert (answer["spans"], answer["stored_spans"]) == (3, 4)
        assert (answer["root"]["route"], answer["problems"]) == ("/orders", [])
        assert len(list(read.stored_spans(db, 1))) == 4


@pytest.mark.parametrize(
    ("text", "start", "first"),
    [
        ("", 0, "status:"),
        ("charge st", 7, "status:"),
        ("status:st", 0, "status:stuck"),
        ("status:stuck", 0, None),
        ("queue:", 0, 'queue:"celery"'),
        ("queue:SL", 0, 'queue:"slow"'),
        ("wait>1s rep", 8, 'task:"report"'),
        ('"process', 0, '"process charge"'),
        ("celery.task.n", 0, "celery.task.name="),
        ("expi", 0, "status:expired"),
        ("OSE", 0, 'exception:"OSError"'),
        ("nothing-like-it", 0, None),
    ],
)
def test_how_a_search_could_go_on(
    searched: Traces, text: str, start: int, first: str | None
) -> None:
    with searched.store.database.reading() as db:
        answer = suggest(db, text)
    assert answer["from"] == start
    assert next((found["text"] for found in answer["suggestions"]), None) == first


def test_a_queue_is_found_by_its_broker_too(traces: Traces) -> None:
    def sent(letter: str, broker: str, queue: str = "mail") -> list[ReceivedSpan]:
        facts = {
            "messaging.destination.name": queue,
            **({"messaging.system": "redis", "server.address": broker} if broker else {}),
        }
        return untaken(letter, 1, **facts)

    web, mail = sent("d", "there")
    other = replace(mail, span_id="b", attributes={**mail.attributes, "server.address": "here"})
    elsewhere = replace(other, attributes={**other.attributes, "messaging.destination.name": "x"})
    traces.add(sent("a", "here"), sent("b", "there"), sent("c", ""), [web, mail, elsewhere])
    assert traces.ids(queue="mail") == "cbad"
    assert traces.ids(queue="mail", broker="redis://here") == "a"
    assert traces.ids(queue="mail", broker="redis://there", task="charge") == "bd"
    assert traces.ids(queue="mail", broker="redis://there", task="other") == ""
    assert traces.ids(queue="mail", broker="") == "c"
    assert traces.ids(broker="redis://here") == "ad"
    assert traces.ids(q="broker:HERE") == "bad"
    assert traces.ids(q='broker:"redis://here"') == "ad"
    assert traces.ids(q='broker:""') == "c"


def test_the_state_is_that_of_the_message_that_is_asked_for(traces: Traces) -> None:
    def also(letter: str, queue: str, **run: Any) -> list[ReceivedSpan]:
        """Return an order with a second message, in *queue* and not taken, beside its own."""
        spans = order(letter * 32, **run)
        facts = spans[1].attributes | {
            "messaging.destination.name": queue,
            "messaging.message.id": "other",
        }
        return [*spans, replace(spans[1], span_id="other", attributes=facts)]

    traces.add(
        also("a", "mail"), also("b", "x", state="FAILURE"), also("c", "mail", state="REJECTED")
    )
    assert traces.ids(status="waiting") == "cba"
    assert traces.ids(status="waiting", queue="mail") == "ca"
    assert traces.ids(q="status:waiting", queue="mail", task="charge") == "ca"
    assert traces.ids(status="waiting", queue="celery") == ""
    assert traces.ids(status="failure", queue="celery") == "b"
    assert traces.ids(status="failure", queue="x") == ""
    assert traces.ids(status="rejected", queue="celery", task="charge") == "c"
    assert traces.ids(status="error", queue="mail") == "c"


def test_a_time_range_has_what_began_before_it_and_went_on(traces: Traces) -> None:
    """The numbers of a queue count runs by their time, and their messages may have waited."""

    def waited(letter: str, seconds: float, state: str) -> list[ReceivedSpan]:
        web, sent, ran, _ = order(letter * 32, -seconds * 1e3, state=state)
        later = int(seconds * 1e9)
        return [web, sent, replace(ran, start_ns=ran.start_ns + later, end_ns=ran.end_ns + later)]

    failed_early = order("c" * 32, -2 * HOUR * 1e3, state="FAILURE")
    goes_on = untaken("c", 2 * HOUR)[1]
    traces.add(
        waited("a", 2 * HOUR, "FAILURE"),
        order("b" * 32, -2 * HOUR * 1e3, state="FAILURE"),
        [*failed_early, replace(goes_on, span_id="other")],
        untaken("d", 2 * HOUR, **{EXPIRES: at(-HOUR)}),
        untaken("e", 2 * HOUR, **{EXPIRES: at(-60)}),
    )
    assert traces.ids(since_s=600, sort="received") == "eca"
    assert traces.ids(since_s=600, sort="wait") == "cea"
    assert traces.ids(since_s=600, queue="celery", status="failure") == "a"
    assert traces.ids(queue="celery", status="failure", sort="received") == "cba"
    assert traces.ids(since_s=600, status="expired") == "e"
    assert traces.ids(status="expired") == "ed"
    earlier = {"from": at(-1.5 * HOUR), "to": at(-600)}
    assert traces.ids(**earlier, sort="received") == "edca"
    assert traces.ids(**earlier, status="expired") == "d"
    assert traces.ids(**earlier, queue="celery", status="failure") == ""
    assert traces.ids(to=at(-600), queue="celery", status="failure", sort="received") == "cb"


def test_a_time_range_has_two_ends(traces: Traces) -> None:
    for letter, ago in (("a", 3000), ("b", 2000), ("c", 1000)):
        traces.add(order(letter * 32, -ago * 1e3))
    for sort in ("recent", "received", "duration", "wait"):
        assert traces.ids(**{"from": at(-2500), "to": at(-1500)}, sort=sort) == "b"
        assert set(traces.ids(**{"from": at(-2500)}, sort=sort)) == {*"cb"}
        assert set(traces.ids(to=at(-1500), sort=sort)) == {*"ba"}
    # A Unix time of 0, and times in another zone.
    assert traces.ids(**{"from": "1970-01-01T00:00:00Z", "to": "1970-01-02T00:00:00Z"}) == ""
    assert traces.ids(to="2100-01-01T00:00:00+09:00") == "cba"


def test_a_backlog_is_read_from_an_index(messages: Traces) -> None:
    """A look-up of each row takes several times as long, and a backlog may have 100,000."""
    statements: list[str] = []
    with messages.store.database.reading() as db:
        db.set_trace_callback(statements.append)
        for sort in ("wait", "duration"):
            for asked in ({}, {"since_s": "60"}, {"to": at(0)}, {"q": "wait>1s"}):
                assert find(db, Search.parse({"sort": sort, **asked}))["traces"]
        db.set_trace_callback(None)
        reads = [text for text in statements if "found INDEXED BY found_" in text]
        plans = [
            detail
            for text in reads
            for *_, detail in db.execute(f"EXPLAIN QUERY PLAN {text}")
            if " found " in detail
        ]
    assert plans
    assert [plan for plan in plans if "COVERING INDEX" not in plan] == []


def test_the_exception_is_that_of_a_run_that_is_asked_for(traces: Traces) -> None:
    def failed(letter: str, queue: str, **run: Any) -> list[ReceivedSpan]:
        spans = order(letter * 32, **run)
        named = {"messaging.destination.name": queue}
        return [replace(s, attributes=s.attributes | named) for s in spans]

    web, *rest = failed("c", "celery")
    traces.add(
        failed("a", "celery", error="OSError: gone", state="FAILURE"),
        failed("b", "mail", error="OSError: gone", state="RETRY"),
        [replace(web, events=failed("d", "", error="OSError: x")[2].events), *rest],
        # The conventions allow an error without an exception.
        failed("e", "celery", state="FAILURE", error__type="OSError"),
    )
    assert traces.ids(exception="OSError") == "eba"
    assert traces.ids(exception="OSError", queue="celery") == "ea"
    assert traces.ids(exception="OSError", status="retry", queue="mail") == "b"
    assert traces.ids(exception="OSError", status="retry", queue="celery") == ""
    assert traces.ids(exception="KeyError") == ""
    assert traces.ids(q="exception:oserror", sort="received") == "ecba"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("POST /ORD", ["web"]),
        ("http.route=/orders", ["web"]),
        ("gone", ["run"]),
        ("exception.type=OSError", ["run"]),
        ("shop-worker", ["run", "store"]),
        ("wait.queue=0.38", ["run"]),
        ("état", ["web"]),
        ("db.system.name=redi", ["store"]),
        ("true", ["store"]),
        ("nowhere", []),
        ("", []),
    ],
)
def test_spans_of_one_trace_are_found_by_their_attributes(
    traces: Traces, text: str, found: list[str]
) -> None:
    web, sent, ran, store = order(error="OSError: gone")
    web = replace(web, attributes={**web.attributes, "word": "ÉTAT"})
    store = replace(store, attributes={**store.attributes, "cached": True})
    traces.add([web, sent, ran, store])
    with traces.store.database.reading() as db:
        ids = spans_like(db, 1, text)
    assert sorted(ids) == sorted(map(shown, found))


def test_what_is_deleted_is_found_no_more(traces: Traces) -> None:
    traces.store.bounds = Bounds(max_spans=4)
    traces.add(order("a" * 32, messaging__message__id="order-1"))
    traces.add(order("b" * 32, messaging__message__id="order-2"))
    with traces.store.database.reading() as db:
        for table in ("spans", "found", "named", "messages", "attributes"):
            assert db.execute(f"SELECT count(DISTINCT trace) FROM {table}").fetchone() == (1,)
    assert traces.ids(q="order-1") == ""
    assert traces.ids(q="order-2") == "b"
