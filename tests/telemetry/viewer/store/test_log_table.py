"""Log records in the viewer's database: found by trace, by span and by text, and bounded."""

from collections.abc import Iterator

import pytest

from telemetry.viewer.store.database import MEMORY, Database
from telemetry.viewer.store.log_table import LogSearch, find_logs, logs_of_trace
from telemetry.viewer.store.search import Search, find
from telemetry.viewer.store.trace_store import Bounds, Store

from ..exports import export, span_id
from ..logs import export_logs, log
from ..spans import order

TRACE = order()[0].trace_id


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store(Database(MEMORY))
    yield store
    store.close()


def texts(store: Store, trace: str, span: str | None = None) -> list[str]:
    named = None if span is None else span_id(span)
    with store.database.reading() as db:
        found, _ = logs_of_trace(db, bytes.fromhex(trace), named)
    return [stored.log.text for stored in found]


def listed(store: Store, **query: str) -> list[str]:
    with store.database.reading() as db:
        found, _ = find_logs(db, LogSearch.parse(query))
    return [stored.log.text for stored in found]


def take(store: Store, *logs: object, **options: str) -> None:
    refused, _ = store.take_logs(export_logs(logs, **options))  # type: ignore[arg-type]
    assert not refused
    assert not store.wait_until_written(10)


def test_a_spans_log_records_are_in_the_order_of_time(store: Store) -> None:
    take(store, log("late", TRACE, "a", 3), log("early", TRACE, "a", 1), log("b", TRACE, "b", 2))
    assert texts(store, TRACE) == ["early", "b", "late"]
    assert texts(store, TRACE, "a") == ["early", "late"]
    with store.database.reading() as db:
        (first, *_), _ = logs_of_trace(db, bytes.fromhex(TRACE))
    assert (first.log.service, first.log.scope, first.log.level) == ("worker", "shop", "INFO")


def test_what_is_delivered_twice_is_there_once(store: Store) -> None:
    for _ in range(2):
        take(store, log("a", TRACE, "a", 1), log("b", TRACE, "a", 1))
    assert texts(store, TRACE) == ["a", "b"]
    assert store.logs == 2


def test_traces_are_found_by_the_text_of_their_log_records(store: Store) -> None:
    store.take(export(order()))
    take(store, log("Card DECLINED by bank", TRACE, "a"), log("fine", "ab" * 16, "b"))
    store.wait_until_written(10)
    for text, count in (("declined by", 1), ("accepted", 0), ("fine", 0)):
        search = Search.parse({"q": f'log:"{text}"'})
        with store.database.reading() as db:
            found = find(db, search)["traces"]
        # It is summarized a moment later.
        while len(found) < count:
            with store.database.reading() as db:
                found = find(db, search)["traces"]
        assert len(found) == count


def test_those_without_a_span_that_is_here_are_listed(store: Store) -> None:
    store.take(export(order()))
    take(store, log("alone"), log("in a trace", TRACE, "a"), log("of a lost one", "ab" * 16, "a"))
    assert listed(store) == ["of a lost one", "alone"]
    assert listed(store, all="1") == ["of a lost one", "in a trace", "alone"]
    assert listed(store, q="LOST") == ["of a lost one"]
    assert listed(store, limit="1") == ["of a lost one"]


def test_the_list_goes_on_and_has_a_level(store: Store) -> None:
    take(store, *(log(str(number), severity=number) for number in range(1, 11)))
    with store.database.reading() as db:
        found, following = find_logs(db, LogSearch.parse({"limit": "4", "severity": "5"}))
        rest, end = find_logs(db, LogSearch.parse({"before": str(following), "severity": "5"}))
    assert [stored.log.text for stored in (*found, *rest)] == ["10", "9", "8", "7", "6", "5"]
    assert end is None


@pytest.mark.parametrize("alone", [{}, {"all": "1"}])
@pytest.mark.parametrize("text", ["ab", "abc", 'x "abc" é', "a*b", "NOT x AND", "0"])
def test_any_text_is_found_as_it_is(store: Store, text: str, alone: dict[str, str]) -> None:
    take(store, log(f"before {text} after"), log("something else"), log("a\0b: abc x\0"))
    found = listed(store, q=text.upper(), **alone)
    assert f"before {text} after" in found
    assert "something else" not in found
    assert listed(store, q="x") == ["a\0b: abc x\0", *([f"before {text} after"] * ("x" in text))]


def test_a_log_record_is_of_a_trace_as_soon_and_as_long_as_that_is_here() -> None:
    store = Store(Database(MEMORY), Bounds(max_spans=4))
    take(store, log("early", TRACE, "a"))
    found = [listed(store)]
    for trace_id in (TRACE, "ef" * 16):
        store.take(export(order(trace_id)))
        store.wait_until_written(10)
        while store.spans > 4:
            store.wait_until_written(1)
        found.append(listed(store))
    store.close()
    assert found == [["early"], [], ["early"]]


@pytest.mark.parametrize("query", [{"limit": "-1"}, {"severity": "x"}, {"before": "9" * 30}])
def test_a_query_that_cannot_be(query: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(query))):
        LogSearch.parse(query)


@pytest.mark.parametrize(
    "odd", [log("x", "ab"), log("x", "ab" * 16, at=2**63 / 1e9 + 1), log("x" * 1024 * 1024)]
)
def test_an_odd_one_is_refused_alone(store: Store, odd: object) -> None:
    refused, reason = store.take_logs(export_logs([odd, log("sound")]))  # type: ignore[list-item]
    assert refused == 1
    assert "16 bytes" in reason
    store.wait_until_written(10)
    assert listed(store) == ["sound"]


def test_beyond_the_bounds_the_oldest_go() -> None:
    store = Store(Database(MEMORY), Bounds(max_spans=10))
    take(store, *(log(str(number)) for number in range(30)))
    while store.logs > 10:
        store.wait_until_written(1)
    assert listed(store) == [str(number) for number in range(29, 19, -1)]
    store.close()


def test_those_that_are_too_old_go() -> None:
    store = Store(Database(MEMORY), Bounds(max_age=0.2))
    take(store, log("old"))
    while store.logs:
        store.wait_until_written(1)
    assert listed(store) == []
    store.close()
