"""The text of the search field is parsed, or an error names its position and the problem."""

import pytest

from telemetry.viewer.store.query import (
    Attribute,
    Bound,
    Field,
    Id,
    Part,
    QueryError,
    Word,
    parse_query,
)

from ..spans import TRACE

SPAN = "00f067aa0ba902b7"
TASK = "5f0c2b7e-6a0e-4d0e-9a55-0f7f2d3b6c11"
MS, S = 10**6, 10**9


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("   ", []),
        ("charge", [Word("charge")]),
        ("GET /orders", [Word("GET"), Word("/orders")]),
        ('"GET /orders"', [Word("GET /orders")]),
        ("http://shop:80", [Word("http://shop:80")]),
        (TRACE, [Id("trace", TRACE)]),
        (TRACE.upper(), [Id("trace", TRACE)]),
        (SPAN, [Id("span", SPAN)]),
        (f"00-{TRACE}-{SPAN}-01", [Id("trace", TRACE), Id("span", SPAN)]),
        (TASK, [Id("message", TASK)]),
        ("id:order-42", [Id("message", "order-42")]),
        (f"tasks.add[{TASK}]", [Id("message", TASK)]),
        (f"[{TASK}]:", [Id("message", TASK)]),
        (f"task_id={TASK}", [Id("message", TASK)]),
        ("task_id=7", [Attribute("task_id", "7")]),
        (f"trace_id={TRACE} span_id={SPAN}", [Id("trace", TRACE), Id("span", SPAN)]),
        (f"traceId:{TRACE}", [Id("trace", TRACE)]),
        (f"traceparent: 00-{TRACE}-{SPAN}-01", [Id("trace", TRACE), Id("span", SPAN)]),
        ("trace:4bf9", [Id("trace", "4bf9")]),
        ("queue:mail", [Field("queue", "mail")]),
        ('queue:"mail out"', [Field("queue", "mail out", exact=True)]),
        ('queue:""', [Field("queue", "", exact=True)]),
        ('task:"" broker:""', [Field("task", "", exact=True), Field("broker", "", exact=True)]),
        ("queue=mail", [Field("queue", "mail", exact=True)]),
        ("Status:STUCK", [Field("status", "stuck")]),
        ("status:retry", [Field("status", "retry")]),
        ("state=RETRY", [Field("status", "retry", exact=True)]),
        ("exception:OSError", [Field("exception", "OSError")]),
        ('"OR"', [Word("OR")]),
        ("route:/orders/<id>", [Field("route", "/orders/<id>")]),
        ("wait>2s", [Bound("wait", ">", 2 * S)]),
        ("wait > 2s", [Bound("wait", ">", 2 * S)]),
        ("wait>=1.5s", [Bound("wait", ">=", 1500 * MS)]),
        ("duration<200ms", [Bound("duration", "<", 200 * MS)]),
        ("wait>2 s", [Bound("wait", ">", 2 * S)]),
        ("wait > 200 ms charge", [Bound("wait", ">", 200 * MS), Word("charge")]),
        ("wait>2 charge", [Bound("wait", ">", 2 * S), Word("charge")]),
        ("wait>2 seconds", [Bound("wait", ">", 2 * S)]),
        ("wait>90minutes", [Bound("wait", ">", 5400 * S)]),
        ("wait:>2s", [Bound("wait", ">", 2 * S)]),
        ("duration<=1,5", [Bound("duration", "<=", 1500 * MS)]),
        ("wait>2min task:add", [Bound("wait", ">", 120 * S), Field("task", "add")]),
        ("wait>3h", [Bound("wait", ">", 3 * 3600 * S)]),
        ("wait>99999999d", [Bound("wait", ">", 2**63 - 1)]),
        ("user.id=7", [Attribute("user.id", "7")]),
        ('note="a b" x', [Attribute("note", "a b"), Word("x")]),
        ("url=http://a/?b=c", [Attribute("url", "http://a/?b=c")]),
        ("a->b", [Word("a->b")]),
        ("<script>alert(1)</script>", [Word("<script>alert(1)</script>")]),
    ],
)
def test_what_is_typed(text: str, parts: list[Part]) -> None:
    assert parse_query(text) == parts


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("wait>soon", 5, "'soon' is not a duration: for example 200ms, 1.5s or 2min"),
        ("charge wait>2parsecs", 12, "'2parsecs' is not a duration"),
        ("wait>", 5, "write a duration here"),
        ("wait=2s", 0, "compare wait with > or <: wait>2s"),
        ("wait:2s", 0, "compare wait with > or <: wait>2s"),
        ("duration:", 0, "compare duration with > or <: duration>2s"),
        ("mail OR payments", 5, "OR is not supported: a trace must match all parts"),
        ("a service!=shop", 2, "!= is not supported"),
        ('queue:"mail', 6, 'this quote is not closed: add a "'),
        ("spans>5", 0, "spans cannot be compared; wait and duration can"),
        ("a status:odd", 9, "unknown status 'odd': use one of ok, error, stuck"),
        ("queue:", 6, "write what to look for after queue:"),
        ('service:""', 8, "write what to look for after service:"),
        ("user.id=", 8, "write the value after user.id="),
        ('task:add "GET', 9, 'this quote is not closed: add a "'),
        ('""', 0, "there is nothing between the quotes"),
        ("trace:xyz", 6, "the id of a trace has up to 32 hexadecimal digits"),
        ("span:abc", 5, "the id of a span has 16 hexadecimal digits"),
        ("x" * 2001, 2000, "at most 2000 characters"),
    ],
)
def test_what_cannot_be_understood_is_said_with_its_place(
    text: str, position: int, message: str
) -> None:
    with pytest.raises(QueryError) as caught:
        parse_query(text)
    assert caught.value.position == position
    assert message in str(caught.value)
