"""Receive OTLP: a gRPC server, and the bodies of OTLP/HTTP in protobuf or JSON."""

import errno
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .admission import LARGE_OBJECTS, Busy, Ticket
from .apart import read_apart
from .bounds import Malformed, TooLarge, check_json, check_protobuf
from .otlp_json import from_json
from .protobuf import with_utf8
from .signals import SIGNALS, Export, Exports

#: The most bytes of an export after decompression, over HTTP and over gRPC. gRPC decompresses an
#: export for each of its threads before they can reserve room.
MAX_MESSAGE = 32 * 1024 * 1024
MAX_GRPC_MESSAGE = 16 * 1024 * 1024

PROTOBUF, JSON = "application/x-protobuf", "application/json"

#: Bytes that are decompressed at a time.
_PIECE = 1024 * 1024

#: Called with an export and its gRPC metadata. Returns the number of rejected items and why.
Take = Callable[[Any, dict[str, Any]], tuple[int, str]]

Request = TypeVar("Request", bound=Message)


def gunzip(body: bytes, most: int = MAX_MESSAGE, ticket: Ticket | None = None) -> bytes:
    """Decompress *body*, which must be gzip, to at most *most* bytes.

    Raises TooLarge, Malformed, and with a *ticket* Busy.
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
        raise Malformed("the body is not gzip") from None
    return bytes(unpacked)


def parse(
    kind: type[Export], body: bytes, content_type: str = PROTOBUF, ticket: Ticket | None = None
) -> Export:
    """Read an export of *kind* from *body*.

    Raises Malformed, TooLarge before it builds too much, and with a *ticket* Busy.
    """
    if content_type != JSON:
        return _from_protobuf(body, kind, ticket)
    values = check_json(body)
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


@contextmanager
def receive(
    kind: type[Export],
    length: int | None,
    read: Callable[[], bytes],
    encoding: str = "identity",
    content_type: str = PROTOBUF,
) -> Iterator[Export]:
    """Read an export of *kind* over HTTP, and reserve memory for it while the block runs.

    *read* returns its body. *length* is the length of the body, if it is known. Raises Busy,
    Malformed and TooLarge.
    """
    with Ticket() as ticket:
        ticket.fit(length or 0)
        body = read()
        ticket.fit(len(body))
        if encoding == "gzip":
            body = gunzip(body, ticket=ticket)
        yield parse(kind, body, content_type, ticket)


def _from_protobuf(body: bytes, kind: type[Request], ticket: Ticket | None) -> Request:
    descriptor: Any = kind.DESCRIPTOR  # upb's is like Descriptor
    objects = check_protobuf(body, descriptor)
    if ticket is not None:
        ticket.fit(len(body), objects)
    try:
        return kind.FromString(body)
    except DecodeError:
        body = with_utf8(body, descriptor)
    try:
        return kind.FromString(body)
    except DecodeError as exc:
        _, _, reason = str(exc).rpartition(": ")
        reason = "it is nested too deeply" if "MaxDepth" in reason else reason
        raise Malformed(f"the body is not an {descriptor.name}: {reason}") from None


def response_to(kind: type[Message], rejected: int, reason: str) -> Message:
    """Return the response to an export of *kind*, *rejected* of whose items were not accepted."""
    signal = SIGNALS[kind]
    response: Any = signal.response()
    if rejected:
        response.partial_success.error_message = reason
        setattr(response.partial_success, signal.rejected, rejected)
    return response  # type: ignore[no-any-return]


def encode_response(message: Message, content_type: str) -> bytes:
    """Return *message* in JSON or protobuf, whichever its request had."""
    if content_type == JSON:
        return json.dumps(json_format.MessageToDict(message)).encode()
    return message.SerializeToString()


def grpc_server(
    address: str,
    takes: Mapping[type[Message], Take],
    credentials: grpc.ServerCredentials | None = None,
) -> tuple[grpc.Server, int]:
    """Return an OTLP/gRPC server at *address* that is not yet started, and its port.

    It has a service for each kind of export in *takes*. *credentials* enable TLS. Raises OSError if
    the server cannot listen there.
    """
    server = grpc.server(
        ThreadPoolExecutor(max_workers=8, thread_name_prefix="otlp"),
        # Without so_reuseport=0, a second server on the same port would silently share it.
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_GRPC_MESSAGE)],
    )
    server.add_generic_rpc_handlers([_service(kind, take) for kind, take in takes.items()])
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


def _service(kind: type[Message], take: Take) -> grpc.GenericRpcHandler:
    def export(body: bytes, context: grpc.ServicerContext) -> Message:
        with Ticket() as ticket:
            try:
                ticket.fit(len(body))
                request = _from_protobuf(body, kind, ticket)
            except TooLarge as exc:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(exc))
            except Malformed as exc:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(exc))
            except Busy as exc:
                context.abort(grpc.StatusCode.UNAVAILABLE, str(exc))
            return response_to(kind, *take(request, dict(context.invocation_metadata())))

    # Without a deserializer the body arrives as bytes, so its objects are counted first.
    handler: grpc.RpcMethodHandler[bytes, Message] = grpc.unary_unary_rpc_method_handler(
        export, response_serializer=lambda response: response.SerializeToString()
    )
    return grpc.method_handlers_generic_handler(
        f"opentelemetry.proto.collector.{SIGNALS[kind].service}", {"Export": handler}
    )
