"""Log records as bytes: a receiver gets the same as from a stock SDK, in protobuf and JSON."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from telemetry.config.settings import Logs
from telemetry.export.outgoing import LOGS, origin_of, outgoing
from telemetry.otlp.bounds import MAX_SPANS, Malformed, TooLarge
from telemetry.otlp.decode import ReceivedLog, decode_logs
from telemetry.otlp.encode import encode_request
from telemetry.otlp.server import JSON, parse
from telemetry.tracing.log_records import record_logs
from telemetry.tracing.record import RecordedLog

RESOURCE = Resource({"service.name": "shop", "service.instance.id": "1"})
LOGGER = logging.getLogger("shop.stock")


def encoded(recorded: list[RecordedLog]) -> bytes:
    origin = origin_of(RESOURCE, LOGS, True)
    parts = []
    for log in recorded:
        sent = outgoing(origin, log).log
        assert sent is not None
        parts.append(sent)
    return encode_request(parts)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], tuple[Any, Any]]]:
    """The requests of our handler and of the SDK's, for the same records."""
    monkeypatch.setattr(logging.Logger, "callHandlers", logging.Logger.callHandlers)
    # Another test may have set the ids as attributes of all records, which the SDK would send.
    handle = getattr(logging.Handler.handle, "__wrapped__", logging.Handler.handle)
    monkeypatch.setattr(logging.Handler, "handle", handle)
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(RESOURCE)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        handler = LoggingHandler(logger_provider=provider)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG)
    recorded: list[RecordedLog] = []
    record_logs(recorded.append, Logs(level=logging.DEBUG))
    yield lambda: (
        ExportLogsServiceRequest.FromString(encoded(recorded)),
        encode_logs(exporter.get_finished_logs()),
    )
    LOGGER.removeHandler(handler)
    provider.shutdown()


def comparable(log: ReceivedLog) -> dict[str, Any]:
    return {
        name: getattr(log, name)
        for name in (
            *("trace_id", "span_id", "time_ns", "severity", "level", "body"),
            *("attributes", "scope", "resource", "flags", "dropped"),
        )
    }


def test_ours_and_those_of_a_stock_sdk_arrive_alike(
    both: Callable[[], tuple[Any, Any]],
) -> None:
    context = SpanContext(1 << 100, 2, False, TraceFlags(1))
    with trace.use_span(NonRecordingSpan(context)):
        LOGGER.debug("order %d", 7, extra={"items": 2, "kind": "book", "paid": True, "tax": 0.5})
        LOGGER.warning("late")
        try:
            raise LookupError("nothing")
        except LookupError:
            LOGGER.exception("failed")
    LOGGER.critical("outside")
    ours, theirs = map(decode_logs, both())
    assert len(ours) == 4
    assert list(map(comparable, ours)) == list(map(comparable, theirs))


def test_the_fields_are_in_ascending_order_as_protobuf_writes_them() -> None:
    log = RecordedLog(
        *(1, "shop", 20, "INFO", "a line", "/shop.py", "sell", 3),
        *(b"\x01" * 16, 2, 1, None, "a stack", {"a": 1}, 4),
    )
    data = encoded([log])
    request = ExportLogsServiceRequest.FromString(data)
    assert request.SerializeToString() == data
    assert request.resource_logs[0].scope_logs[0].log_records[0].dropped_attributes_count == 4


def test_a_damaged_record_raises() -> None:
    log = RecordedLog(1, "shop", 20, "INFO", "a line", "", "", 0, trace_id=b"short")
    with pytest.raises(ValueError, match="trace id"):
        encoded([log])


def test_json_is_read_as_protobuf_is() -> None:
    log = RecordedLog(*(1, "shop", 20, "INFO", "a line", "/shop.py", "sell", 3), b"\x01" * 16, 2, 1)
    request = ExportLogsServiceRequest.FromString(encoded([log]))
    document = json_format.MessageToDict(request, use_integers_for_enums=True)
    (item,) = document["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    item.update(traceId="01" * 16, spanId=f"{2:016x}")
    many = document["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    read = parse(ExportLogsServiceRequest, json.dumps(document).encode(), JSON)
    assert decode_logs(read) == decode_logs(request)
    # A large one is read in a process of its own.
    many += many * 12_000
    read = parse(ExportLogsServiceRequest, json.dumps(document).encode(), JSON)
    assert len(decode_logs(read)) == 12_001


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"resourceLogs": [{"scopeLogs": 1}]}'])
def test_malformed_json_is_named(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse(ExportLogsServiceRequest, body, JSON)


def test_too_many_log_records_are_refused_before_any_is_built() -> None:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for _ in range(MAX_SPANS + 1):
        records.add(time_unix_nano=1)
    with pytest.raises(TooLarge, match="log records"):
        parse(ExportLogsServiceRequest, request.SerializeToString())


def test_the_body_may_be_any_value() -> None:
    request = ExportLogsServiceRequest()
    log = request.resource_logs.add().scope_logs.add().log_records.add()
    log.observed_time_unix_nano = 5
    log.body.kvlist_value.values.add(key="event").value.string_value = "paid"
    (received,) = decode_logs(request)
    assert (received.time_ns, received.body, received.text) == (
        5,
        {"event": "paid"},
        '{"event": "paid"}',
    )
