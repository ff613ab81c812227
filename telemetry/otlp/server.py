"""Receive OTLP: a gRPC server, and the bodies of OTLP/HTTP in protobuf or JSON."""

import base64
import errno
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

__all__ = [
    "JSON",
    "PROTOBUF",
    "Malformed",
    "TooLarge",
    "encode_response",
    "grouped",
    "grpc_server",
    "gunzip",
    "parse",
    "partial",
    "to_json",
]

#: The largest export that is accepted, in bytes, after decompression.
MAX_MESSAGE = 64 * 1024 * 1024

PROTOBUF, JSON = "application/x-protobuf", "application/json"

#: Called with an export and its gRPC metadata; returns how many of its spans are refused, and why.
OnTraces = Callable[[ExportTraceServiceRequest, dict[str, Any]], tuple[int, str]]
OnMetrics = Callable[[ExportMetricsServiceRequest], None]

_ID_FIELDS = ("traceId", "spanId", "parentSpanId")


class Malformed(ValueError):
    """The body is not OTLP; the message names the error."""


class TooLarge(ValueError):
    """The body is larger than the limit."""


def gunzip(body: bytes, most: int = MAX_MESSAGE) -> bytes:
    """Decompress *body* up to *most* bytes. Raises TooLarge beyond, Malformed if it is not gzip."""
    try:
        unpacked = gzip.GzipFile(fileobj=io.BytesIO(body)).read(most + 1)
    except EOFError:
        raise Malformed("the gzip of the body ends too early") from None
    except (OSError, zlib.error) as exc:
        raise Malformed(f"the body is no gzip: {exc}") from None
    if len(unpacked) > most:
        raise TooLarge(f"the body is larger than {most} bytes when unpacked")
    return unpacked


def parse(body: bytes, content_type: str) -> ExportTraceServiceRequest:
    """Read an export from *body*. Raises Malformed."""
    if content_type == JSON:
        return _from_json(body)
    try:
        return ExportTraceServiceRequest.FromString(body)
    except DecodeError as exc:
        raise Malformed(f"the body is no ExportTraceServiceRequest: {exc}") from None


def _from_json(body: bytes) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    try:
        document = json.loads(body)
        if not isinstance(document, dict):
            raise Malformed("the body is not a JSON object with resourceSpans")
        for span in _spans_in(document):
            _hex_to_base64(span)
            for link in span.get("links") or ():
                _hex_to_base64(link)
        json_format.ParseDict(document, request, ignore_unknown_fields=True)
    except Malformed:
        raise
    except (ValueError, TypeError, AttributeError, json_format.Error, RecursionError) as exc:
        raise Malformed(f"the body is no OTLP in JSON: {str(exc)[:300]}") from None
    return request


def _spans_in(document: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for resource in document.get("resourceSpans") or ():
        for scope in resource.get("scopeSpans") or ():
            yield from scope.get("spans") or ()


def _hex_to_base64(item: dict[str, Any]) -> None:
    """Convert the ids of *item* from hex, as in OTLP/JSON, to base64, as in protobuf's JSON."""
    for field in _ID_FIELDS:
        if value := item.get(field):
            item[field] = base64.b64encode(bytes.fromhex(value)).decode()


def grouped(spans: Iterable[tuple[bytes, Span]]) -> list[ResourceSpans]:
    """Group *spans*, each with its resource and scope as bytes, by those two."""
    sources: dict[bytes, ResourceSpans] = {}
    for source, span in spans:
        if source not in sources:
            sources[source] = ResourceSpans.FromString(source)
        sources[source].scope_spans[0].spans.append(span)
    return list(sources.values())


def to_json(resource_spans: Iterable[ResourceSpans]) -> dict[str, Any]:
    """Return OTLP/JSON: ids in hex, enums as numbers, 64-bit numbers as strings."""
    document = json_format.MessageToDict(
        ExportTraceServiceRequest(resource_spans=resource_spans), use_integers_for_enums=True
    )
    for span in _spans_in(document):
        for item in (span, *span.get("links", ())):
            for field in _ID_FIELDS:
                if value := item.get(field):
                    item[field] = base64.b64decode(value).hex()
    return document


def partial(refused: int, reason: str) -> ExportTraceServiceResponse:
    """Return the response to an export with *refused* spans that were not accepted."""
    if not refused:
        return ExportTraceServiceResponse()
    return ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=refused, error_message=reason)
    )


def encode_response(message: Message, content_type: str) -> bytes:
    """Return *message* in the encoding of its request."""
    if content_type == JSON:
        return json.dumps(json_format.MessageToDict(message)).encode()
    return message.SerializeToString()


def grpc_server(
    address: str,
    on_traces: OnTraces,
    on_metrics: OnMetrics = lambda request: None,
    credentials: grpc.ServerCredentials | None = None,
) -> tuple[grpc.Server, int]:
    """Return a server of OTLP/gRPC at *address*, not started, and its port.

    *credentials* enable TLS. Raises OSError if it cannot listen there.
    """
    server = grpc.server(
        ThreadPoolExecutor(max_workers=4, thread_name_prefix="otlp"),
        # Without the first, a second server on the same port would share it, silently.
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_MESSAGE)],
    )
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call]
        _Traces(on_traces), server
    )
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(  # type: ignore[no-untyped-call]
        _Metrics(on_metrics), server
    )
    try:
        if credentials is not None:
            port = server.add_secure_port(address, credentials)
        else:
            port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise OSError(errno.EADDRINUSE, f"{address} is taken or cannot be listened on")
    return server, port


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, on_traces: OnTraces) -> None:
        self._on_traces = on_traces

    def Export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        return partial(*self._on_traces(request, dict(context.invocation_metadata())))


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, on_metrics: OnMetrics) -> None:
        self._on_metrics = on_metrics

    def Export(
        self, request: ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> ExportMetricsServiceResponse:
        self._on_metrics(request)
        return ExportMetricsServiceResponse()
