"""Stored spans are decoded like those of an export."""

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from telemetry.otlp.decode import Event, Link, ReceivedSpan, decode
from telemetry.viewer.store.incoming import incoming
from telemetry.viewer.store.span_decoding import decode_spans

from ..exports import export

VALUES = [
    "",
    "a",
    "ä\0",
    False,
    True,
    0,
    1,
    -1,
    2**62,
    0.0,
    1.0,
    1e-9,
    b"",
    b"\xff",
    ["a", 1, [None]],
]


def span(number: int) -> ReceivedSpan:
    attributes = {"messaging.system": "redis", "number": number}
    attributes |= {str(at): value for at, value in enumerate(VALUES)}
    trace_id = "a" * 32
    return ReceivedSpan(
        trace_id=trace_id,
        span_id=f"s{number}",
        parent_id="p",
        name="work",
        kind="CONSUMER",
        start_ns=5,
        end_ns=2**62,
        status="ERROR",
        status_message="failed",
        attributes=attributes,
        events=(Event("exception", 6, {"number": number, "exception.type": "ValueError"}),),
        links=(Link("b" * 32, "l", {"number": number}),),
        trace_state="queuehop=1",
        flags=0x301,
        scope="tests",
        resource={"service.name": f"worker{number % 2}"},
    )


def test_stored_spans_are_those_of_their_export() -> None:
    request = export(map(span, range(3)))
    [*repeated] = (KeyValue(key="again", value=AnyValue(int_value=at)) for at in range(2))
    odd = request.resource_spans[0].scope_spans[0].spans[0]
    odd.attributes.extend([*repeated, KeyValue(key="empty"), KeyValue()])
    odd.dropped_attributes_count, odd.dropped_events_count, odd.dropped_links_count = 1, 2, 3
    stored, refused = incoming(request)
    assert not refused
    spans = list(decode_spans((each.source, each.body) for each in stored))
    assert spans == decode(request)
    assert (spans[0].attributes["again"], spans[0].attributes["empty"]) == (1, None)
    for at, value in enumerate(VALUES):
        assert (type(value), value) == (type(found := spans[1].attributes[str(at)]), found)
