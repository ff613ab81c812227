"""Files of other programs are imported, or an error names their format."""

import base64
import gzip
import json
import re
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from telemetry.otlp.bounds import TooLarge
from telemetry.otlp.decode import decode
from telemetry.viewer.import_files import read_file

from .conftest import Viewer
from .exports import as_json, export
from .spans import TRACE, order

#: A send and its failed run, as Jaeger's page downloads them.
JAEGER: dict[str, Any] = {
    "data": [
        {
            "traceID": "4bf92f3577b34da6a3ce929d0e0e4736",
            "spans": [
                {
                    "traceID": "4bf92f3577b34da6a3ce929d0e0e4736",
                    "spanID": "f067aa0ba902b7",
                    "operationName": "send charge",
                    "references": [],
                    "startTime": 1700000000000000,
                    "duration": 2500,
                    "tags": [
                        {"key": "span.kind", "type": "string", "value": "producer"},
                        {"key": "otel.scope.name", "type": "string", "value": "shop.orders"},
                        {"key": "messaging.message.body.size", "type": "int64", "value": "42"},
                    ],
                    "logs": [],
                    "processID": "p1",
                    "warnings": None,
                },
                {
                    "traceID": "4bf92f3577b34da6a3ce929d0e0e4736",
                    "spanID": "a3ce929d0e0e4736",
                    "operationName": "process charge",
                    "references": [
                        {
                            "refType": "CHILD_OF",
                            "traceID": "4bf92f3577b34da6a3ce929d0e0e4736",
                            "spanID": "00f067aa0ba902b7",
                        },
                        {"refType": "FOLLOWS_FROM", "traceID": "abc1", "spanID": "de1"},
                    ],
                    "startTime": 1700000000386000,
                    "duration": 26000,
                    "tags": [
                        {"key": "span.kind", "type": "string", "value": "consumer"},
                        {"key": "error", "type": "bool", "value": True},
                        {"key": "otel.status_code", "type": "string", "value": "ERROR"},
                        {"key": "otel.status_description", "type": "string", "value": "gone"},
                        {"key": "celery.wait.queue", "type": "float64", "value": 0.38},
                    ],
                    "logs": [
                        {
                            "timestamp": 1700000000400000,
                            "fields": [
                                {"key": "event", "type": "string", "value": "exception"},
                                {"key": "exception.type", "type": "string", "value": "OSError"},
                            ],
                        }
                    ],
                    "processID": "p2",
                    "warnings": None,
                },
            ],
            "processes": {
                "p1": {
                    "serviceName": "shop",
                    "tags": [{"key": "host.name", "type": "string", "value": "h1"}],
                },
                "p2": {"serviceName": "shop-worker", "tags": []},
            },
            "warnings": None,
        }
    ],
    "total": 0,
    "limit": 0,
    "offset": 0,
    "errors": None,
}


#: One order, as OTLP.
ORDER = export(order())


def text(document: object) -> bytes:
    return json.dumps(document).encode()


def otlp() -> dict[str, Any]:
    return as_json(ORDER)


def tempo() -> dict[str, Any]:
    """The same in Tempo's first version: other names, and ids in base64."""
    document = otlp()
    for resource in document["resourceSpans"]:
        resource["instrumentationLibrarySpans"] = resource.pop("scopeSpans")
        for scope in resource["instrumentationLibrarySpans"]:
            scope["instrumentationLibrary"] = scope.pop("scope")
            for span in scope["spans"]:
                for item in (span, *span.get("links", ())):
                    for field in ("traceId", "spanId", "parentSpanId"):
                        if field in item:
                            raw = bytes.fromhex(item[field])
                            item[field] = base64.b64encode(raw).decode()
                span["kind"] = Span.SpanKind.Name(span["kind"])
    return {"batches": document["resourceSpans"]}


def test_jaegers_json() -> None:
    imported = read_file(text(JAEGER))
    assert (imported.kind, imported.spans) == ("Jaeger's JSON", 2)
    sent, run = decode(imported.request)
    assert (sent.trace_id, sent.span_id, sent.parent_id) == (TRACE, "00f067aa0ba902b7", "")
    assert (sent.service, sent.kind, sent.scope) == ("shop", "PRODUCER", "shop.orders")
    assert sent.resource["host.name"] == "h1"
    assert sent.attributes == {"messaging.message.body.size": 42}
    assert sent.end_ns - sent.start_ns == 2_500_000
    assert (run.service, run.kind, run.parent_id) == ("shop-worker", "CONSUMER", sent.span_id)
    assert (run.status, run.status_message) == ("ERROR", "gone")
    assert run.attributes == {"celery.wait.queue": 0.38}
    assert [(e.name, dict(e.attributes)) for e in run.events] == [
        ("exception", {"exception.type": "OSError"})
    ]
    # Jaeger leaves out the zeros that an id begins with.
    [link] = run.links
    assert (link.trace_id, link.span_id) == ("abc1".rjust(32, "0"), "de1".rjust(16, "0"))
    [alone] = JAEGER["data"]
    assert read_file(text(alone)).request == imported.request


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (text(otlp()), "OTLP"),
        (json.dumps(otlp(), indent=2).encode(), "OTLP"),
        (b"\xef\xbb\xbf" + text(otlp()), "OTLP"),
        (text(tempo()), "Tempo's JSON"),
        (text({"trace": otlp()}), "Tempo's JSON"),
        (b"\n".join(text({"resourceSpans": [r]}) for r in otlp()["resourceSpans"]),
         "OTLP, an export a line"),
        (text({"resourceMetrics": []}) + b"\r\n" + text(otlp()) + b"\n", "OTLP, an export a line"),
    ],
    ids=["otlp", "indented", "with a mark", "tempo", "tempo 2", "lines", "lines with metrics"],
)  # fmt: skip
@pytest.mark.parametrize("compressed", [False, True])
def test_the_same_spans(body: bytes, kind: str, compressed: bool) -> None:
    imported = read_file(gzip.compress(body) if compressed else body)
    assert imported.kind == kind
    assert decode(imported.request) == decode(ORDER)
    assert imported.trace_ids == [TRACE]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "it is empty"),
        (gzip.compress(b"", mtime=0), "it is empty"),
        (b"\x0a\x05hello", "it is not JSON"),
        (b"PK\x03\x04rest", "a zip archive: unpack it first"),
        (b"{", "it is not JSON"),
        (text(otlp()) + b"\n{", "line 2, the last, ends too early"),
        (b"{}", "JSON of an unknown kind"),
        (b"[]", "a JSON list of an unknown kind"),
        (b'{"resourceSpans": []}', "there are no spans in it: it is OTLP"),
        (b'{"data": []}', "there are no spans in it: it is Jaeger's JSON"),
        (b'{"data": ["shop"]}', "a response of Jaeger's API without spans"),
        (b'{"traces": [{"traceID": "1", "rootServiceName": "shop"}]}', "a search in Tempo"),
        (b'{"traceEvents": []}', "a Chrome trace"),
        (b'{"resourceMetrics": []}', "metrics in OTLP"),
        (b'[{"traceId": "1", "id": "2", "localEndpoint": {}}]', "Zipkin's JSON"),
        (b'[[{"trace_id": 1, "meta": {}}]]', "Datadog's JSON"),
        (b'{"resourceSpans": 7}', "resourceSpans is not an array"),
        (b'{"resourceSpans": [7]}', "not an array of objects"),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [7]}]}]}', "not an array of objects"),
        (b'{"spans": [{}], "processes": {}}', "looks like Jaeger's JSON, but one of its spans"),
        (b'{"spans": [{"traceID": "x" }], "processes": {}}', "looks like Jaeger's JSON, but"),
        (b'{"spans": 7, "processes": {}}', "looks like Jaeger's JSON, but"),
        (b'{"resourceSpans": ' + b"[" * 200_000, "nested too deeply"),
        (b"\xff\xfe{", "it is not JSON"),
        (gzip.compress(text(otlp()), mtime=0)[:-20], "ends too early"),
    ],
)  # fmt: skip
def test_what_it_is_instead(body: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        read_file(body)


def test_a_file_is_bounded_by_what_it_becomes() -> None:
    with pytest.raises(TooLarge):
        read_file(gzip.compress(b'{"resourceSpans": [' + b"{}," * 1_000_001))
    with pytest.raises(TooLarge):
        read_file(gzip.compress(b"{" + b" " * (128 * 1024 * 1024)))


def test_the_viewer_imports_jaegers(viewer: Viewer) -> None:
    body = gzip.compress(text(JAEGER))
    answer = viewer.post(body, "/api/import", Content_Type="application/octet-stream")
    assert answer.json() == {
        **{"accepted": 2, "logs": 0, "traces": 1, "trace_id": TRACE, "format": "Jaeger's JSON"}
    }
    rows = viewer.get(f"/api/traces/{TRACE}/hops")["rows"]
    assert [row["kind"] for row in rows] == ["span", "wait", "span"]
    empty = viewer.post(b"{}", "/api/import", Content_Type="application/json")
    assert empty.status_code == 400
    assert empty.json()["error"].startswith("it is JSON of an unknown kind")
