"""Receive OTLP: a gRPC server, and the bodies of OTLP/HTTP in protobuf or JSON."""

import base64
import errno
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
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

from .bounds import MAX_OBJECTS, Malformed, TooLarge, check_json, check_protobuf

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
MAX_MESSAGE = 32 * 1024 * 1024

PROTOBUF, JSON = "application/x-protobuf", "application/json"

#: Called with an export and its gRPC metadata; returns how many of its spans are refused, and why.
OnTraces = Callable[[ExportTraceServiceRequest, dict[str, Any]], tuple[int, str]]
OnMetrics = Callable[[ExportMetricsServiceRequest], None]

Request = TypeVar("Request", bound=Message)

_ID_FIELDS = ("traceId", "spanId", "parentSpanId")


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


def parse(
    body: bytes, content_type: str = PROTOBUF, most: int = MAX_OBJECTS
) -> ExportTraceServiceRequest:
    """Read an export from *body*. Raises Malformed, or TooLarge before it builds too much.

    *most* is the number of objects that JSON may have.
    """
    if content_type == JSON:
        check_json(body, most)
        return _from_json(body)
    return _from_protobuf(body, ExportTraceServiceRequest)


def _from_protobuf(body: bytes, kind: type[Request]) -> Request:
    check_protobuf(body, kind.DESCRIPTOR)  # type: ignore[arg-type]  # upb's is like it
    try:
        return kind.FromString(body)
    except DecodeError as exc:
        raise Malformed(f"the body is no {kind.DESCRIPTOR.name}: {exc}") from None


def _from_json(body: bytes) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    try:
        document = json.loads(body)
        if not isinstance(document, dict):
            raise Malformed("the body is not a JSON object with resourceSpans")
        _check_numbers(document)
        for span in _spans_in(document):
            _hex_to_base64(span)
            for link in span.get("links") or ():
                _hex_to_base64(link)
        json_format.ParseDict(document, request, ignore_unknown_fields=True)
    except Malformed:
        raise
    except RecursionError:
        raise Malformed("the body is no OTLP in JSON: it is nested too deeply") from None
    except (TypeError, AttributeError):
        raise Malformed(
            "the body is no OTLP in JSON: resourceSpans, scopeSpans, spans and links are arrays of "
            "objects"
        ) from None
    except (ValueError, json_format.Error) as exc:
        raise Malformed(f"the body is no OTLP in JSON: {str(exc)[:300]}") from None
    return request


#: The numbers that JSON may have as strings: protobuf's integers of 64 bits, and its doubles.
_NUMBERS = {
    **dict.fromkeys(
        ("startTimeUnixNano", "endTimeUnixNano", "timeUnixNano", "intValue"), re.compile("-?[0-9]+")
    ),
    "doubleValue": re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?|NaN|-?Infinity"),
}


def _check_numbers(document: Any) -> None:
    """Raise Malformed for a number in a string that Python would read and the protocol does not."""
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            for key, value in item.items():
                if isinstance(value, str):
                    number = _NUMBERS.get(key)
                    if number is not None and not number.fullmatch(value):
                        raise Malformed(f"{key} is no number: {value[:50]!r}")
                elif isinstance(value, list | dict):
                    waiting.append(value)


def _spans_in(document: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for resource in document.get("resourceSpans") or ():
        for scope in resource.get("scopeSpans") or ():
            yield from scope.get("spans") or ()


def _hex_to_base64(item: dict[str, Any]) -> None:
    """Convert the ids of *item* from hex, as in OTLP/JSON, to base64, as in protobuf's JSON."""
    for field in _ID_FIELDS:
        if value := item.get(field):
            if not (isinstance(value, str) and _HEX.fullmatch(value)):
                raise Malformed(f"{field} is not in hexadecimal digits: {str(value)[:50]!r}")
            item[field] = base64.b64encode(bytes.fromhex(value)).decode()


_HEX = re.compile("([0-9a-fA-F]{2})+")


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
    server.add_generic_rpc_handlers([_traces(on_traces), _metrics(on_metrics)])
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
        request = _read(body, ExportTraceServiceRequest, context)
        return partial(*on_traces(request, dict(context.invocation_metadata())))

    return _service("opentelemetry.proto.collector.trace.v1.TraceService", export)


def _metrics(on_metrics: OnMetrics) -> grpc.GenericRpcHandler:
    def export(body: bytes, context: grpc.ServicerContext) -> Message:
        on_metrics(_read(body, ExportMetricsServiceRequest, context))
        return ExportMetricsServiceResponse()

    return _service("opentelemetry.proto.collector.metrics.v1.MetricsService", export)


def _service(
    name: str, export: Callable[[bytes, grpc.ServicerContext], Message]
) -> grpc.GenericRpcHandler:
    # Without a deserializer the body comes as bytes, and can be looked at before it is parsed.
    handler: grpc.RpcMethodHandler[bytes, Message] = grpc.unary_unary_rpc_method_handler(
        export, response_serializer=lambda response: response.SerializeToString()
    )
    return grpc.method_handlers_generic_handler(name, {"Export": handler})


def _read(body: bytes, kind: type[Request], context: grpc.ServicerContext) -> Request:
    try:
        return _from_protobuf(body, kind)
    except TooLarge as exc:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(exc))
    except Malformed as exc:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(exc))
    raise AssertionError("abort raises")
