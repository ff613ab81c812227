"""An export that is written in JSON is read back unchanged."""

import json
import math

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from telemetry.otlp.otlp_json import from_json, to_json

VALUES = [
    *(AnyValue(double_value=value) for value in (0.0, 1.0, -1e300, math.inf, -math.inf)),
    *(AnyValue(int_value=value) for value in (0, -5, 2**63 - 1, -(2**63))),
    *(AnyValue(bool_value=value) for value in (True, False)),
    *(AnyValue(string_value=value) for value in ("", "é", "\0")),
    AnyValue(),
    AnyValue(bytes_value=b"\xff\xfe"),
    AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue(), AnyValue()])),
    AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="a")])),
]


def export(value: AnyValue) -> ExportTraceServiceRequest:
    span = Span(
        trace_id=b"\xfb" * 16,
        span_id=b"\xff" * 8,
        parent_span_id=b"\1" * 8,
        name="a",
        kind=Span.SPAN_KIND_CONSUMER,
        start_time_unix_nano=2**64 - 1,
        flags=0x101,
        attributes=[KeyValue(key="", value=value), KeyValue(key="k", value=value)],
        events=[Span.Event(time_unix_nano=1, name="e")],
        links=[Span.Link(trace_id=b"\3" * 16, span_id=b"\4" * 8, flags=0x300)],
        status=Status(code=Status.STATUS_CODE_ERROR),
        dropped_links_count=3,
    )
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[span])])]
    )


# protobuf decodes bytes as URL-safe Base64. Python 3.15 warns about that.
@pytest.mark.filterwarnings("ignore:invalid character '/' in URL-safe Base64:FutureWarning")
@pytest.mark.parametrize("value", VALUES, ids=str)
def test_it_is_read_back(value: AnyValue) -> None:
    request = export(value)
    assert from_json(json.dumps(to_json(request)).encode(), ExportTraceServiceRequest) == request


def test_the_spelling_of_the_protocol() -> None:
    request = export(AnyValue(double_value=math.nan))
    resource = to_json(request)["resourceSpans"][0]
    (span,) = resource["scopeSpans"][0]["spans"]
    assert span["traceId"] == "fb" * 16
    assert span["links"][0]["spanId"] == "04" * 8
    assert (span["kind"], span["flags"]) == (5, 0x101)
    assert span["startTimeUnixNano"] == str(2**64 - 1)
    assert span["attributes"][1] == {"key": "k", "value": {"doubleValue": "NaN"}}
