"""Receive OTLP: a gRPC server, and the bodies of OTLP/HTTP in protobuf or JSON."""

import base64
import errno
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from .admission import ADMISSION, LARGE_OBJECTS, Busy, Ticket
from .apart import Exports, read_apart
from .bounds import MAX_OBJECTS, Malformed, TooLarge, check_json, check_protobuf
from .from_json import ID_FIELDS, Export, from_json, spans_in

__all__ = [
    "JSON",
    "PROTOBUF",
    "Busy",
    "Malformed",
    "TooLarge",
    "encode_response",
    "grouped",
    "grpc_server",
    "gunzip",
    "parse",
    "parse_as",
    "partial",
    "partial_logs",
    "receive",
    "receive_as",
    "to_json",
]

#: The largest export that is accepted, in bytes, after decompression: over HTTP, and over gRPC,
#: where the workers unpack one each before they can ask for room.
MAX_MESSAGE = 32 * 1024 * 1024
MAX_GRPC_MESSAGE = 16 * 1024 * 1024

PROTOBUF, JSON = "application/x-protobuf", "application/json"

#: Bytes unpacked at a time.
_PIECE = 1024 * 1024

#: Called with an export and its gRPC metadata; returns how many of its spans are refused, and why.
OnTraces = Callable[[ExportTraceServiceRequest, dict[str, Any]], tuple[int, str]]
OnMetrics = Callable[[ExportMetricsServiceRequest], None]
OnLogs = Callable[[ExportLogsServiceRequest], tuple[int, str]]

Request = TypeVar("Request", bound=Message)


def gunzip(body: bytes, most: int = MAX_MESSAGE, ticket: Ticket | None = None) -> bytes:
    """Decompress *body* up to *most* bytes. Raises TooLarge beyond, Malformed if it is not gzip.

    With a *ticket* it raises Busy where another large export is being read.
    """
    unpacked = bytearray()
    try:
        file = gzip.GzipFile(fileobj=io.BytesIO(body))
        while piece := file.read(_PIECE):
            unpacked += piece
            if len(unpacked) > most:
                raise TooLarge(f"the body is larger than {most} bytes when unpacked")
            if ticket is not None:
                ticket.fit(len(unpacked))
    except EOFError:
        raise Malformed("the gzip of the body ends too early") from None
    except (OSError, zlib.error):
        raise Malformed("the body is no gzip") from None
    return bytes(unpacked)


def parse(
    body: bytes,
    content_type: str = PROTOBUF,
    most: int = MAX_OBJECTS,
    ticket: Ticket | None = None,
) -> ExportTraceServiceRequest:
    """Read an export from *body*. Raises Malformed, or TooLarge before it builds too much.

    *most* is the number of objects that JSON may have. With a *ticket* it raises Busy where
    another large export is being read.
    """
    return parse_as(ExportTraceServiceRequest, body, content_type, most, ticket)


def parse_as(
    kind: type[Export],
    body: bytes,
    content_type: str = PROTOBUF,
    most: int = MAX_OBJECTS,
    ticket: Ticket | None = None,
) -> Export:
    """Do what ``parse`` does, for an export of any *kind*."""
    if content_type != JSON:
        return _from_protobuf(body, kind, ticket)
    values = check_json(body, most)
    if ticket is not None:
        ticket.fit(len(body), values)
    if values <= LARGE_OBJECTS:
        return from_json(body, kind)
    if kind is ExportLogsServiceRequest:
        return read_apart(body, _logs_of_json)[0].logs
    return read_apart(body, _spans_of_json)[0].spans


def _spans_of_json(body: bytes) -> tuple[Exports, str]:
    return Exports(spans=from_json(body, ExportTraceServiceRequest)), ""


def _logs_of_json(body: bytes) -> tuple[Exports, str]:
    return Exports(logs=from_json(body, ExportLogsServiceRequest)), ""


def receive(
    length: int | None,
    read: Callable[[], bytes],
    encoding: str = "identity",
    content_type: str = PROTOBUF,
    most: int = MAX_OBJECTS,
) -> AbstractContextManager[ExportTraceServiceRequest]:
    """Read an export over HTTP, and hold room in memory for it while the block runs.

    *length* is the length of its body, which *read* returns, if it is known. Raises Busy,
    Malformed and TooLarge.
    """
    return receive_as(ExportTraceServiceRequest, length, read, encoding, content_type, most)


@contextmanager
def receive_as(
    kind: type[Export],
    length: int | None,
    read: Callable[[], bytes],
    encoding: str = "identity",
    content_type: str = PROTOBUF,
    most: int = MAX_OBJECTS,
) -> Iterator[Export]:
    """Do what ``receive`` does, for an export of any *kind*."""
    with ADMISSION.ticket() as ticket:
        ticket.fit(length or 0)
        body = read()
        ticket.fit(len(body))
        if encoding == "gzip":
            body = gunzip(body, ticket=ticket)
        yield parse_as(kind, body, content_type, most, ticket)


def _from_protobuf(body: bytes, kind: type[Request], ticket: Ticket | None) -> Request:
    if ticket is not None:
        ticket.fit(len(body))
    objects = check_protobuf(body, kind.DESCRIPTOR)  # type: ignore[arg-type]  # upb's is like it
    if ticket is not None:
        ticket.fit(len(body), objects)
    try:
        return kind.FromString(body)
    except DecodeError as exc:
        _, _, reason = str(exc).rpartition(": ")
        reason = "it is nested too deeply" if "MaxDepth" in reason else reason
        raise Malformed(f"the body is no {kind.DESCRIPTOR.name}: {reason}") from None


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
    for span in spans_in(document):
        for item in (span, *span.get("links", ())):
            for field in ID_FIELDS:
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


def partial_logs(refused: int, reason: str) -> ExportLogsServiceResponse:
    """Return the response to an export with *refused* log records that were not accepted."""
    if not refused:
        return ExportLogsServiceResponse()
    return ExportLogsServiceResponse(
        partial_success=ExportLogsPartialSuccess(rejected_log_records=refused, error_message=reason)
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
    on_logs: OnLogs | None = None,
) -> tuple[grpc.Server, int]:
    """Return a server of OTLP/gRPC at *address*, not started, and its port.

    *credentials* enable TLS. Without *on_logs* it has no service for logs. Raises OSError if it
    cannot listen there.
    """
    server = grpc.server(
        ThreadPoolExecutor(max_workers=8, thread_name_prefix="otlp"),
        # Without the first, a second server on the same port would share it, silently.
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_GRPC_MESSAGE)],
    )
    server.add_generic_rpc_handlers([_traces(on_traces), _metrics(on_metrics)])
    if on_logs is not None:
        server.add_generic_rpc_handlers([_logs(on_logs)])
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


def _traces(on_traces: OnTraces) -> grpc.GenericRpcHandler:
    def export(body: bytes, context: grpc.ServicerContext) -> Message:
        with _read(body, ExportTraceServiceRequest, context) as request:
            return partial(*on_traces(request, dict(context.invocation_metadata())))

    return _service("opentelemetry.proto.collector.trace.v1.TraceService", export)


def _metrics(on_metrics: OnMetrics) -> grpc.GenericRpcHandler:
    def export(body: bytes, context: grpc.ServicerContext) -> Message:
        with _read(body, ExportMetricsServiceRequest, context) as request:
            on_metrics(request)
        return ExportMetricsServiceResponse()

    return _service("opentelemetry.proto.collector.metrics.v1.MetricsService", export)


def _logs(on_logs: OnLogs) -> grpc.GenericRpcHandler:
    def export(body: bytes, context: grpc.ServicerContext) -> Message:
        with _read(body, ExportLogsServiceRequest, context) as request:
            return partial_logs(*on_logs(request))

    return _service("opentelemetry.proto.collector.logs.v1.LogsService", export)


def _service(
    name: str, export: Callable[[bytes, grpc.ServicerContext], Message]
) -> grpc.GenericRpcHandler:
    # Without a deserializer the body comes as bytes, and can be looked at before it is parsed.
    handler: grpc.RpcMethodHandler[bytes, Message] = grpc.unary_unary_rpc_method_handler(
        export, response_serializer=lambda response: response.SerializeToString()
    )
    return grpc.method_handlers_generic_handler(name, {"Export": handler})


@contextmanager
def _read(body: bytes, kind: type[Request], context: grpc.ServicerContext) -> Iterator[Request]:
    with ADMISSION.ticket() as ticket:
        try:
            request = _from_protobuf(body, kind, ticket)
        except TooLarge as exc:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(exc))
        except Malformed as exc:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(exc))
        except Busy as exc:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(exc))
        yield request
