"""A large body in JSON is read in a process of its own.

Its objects are built in one call of C, which holds up every other thread, and take ten times the
memory of their text.
"""

import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans

from .bounds import Malformed, TooLarge

__all__ = ["Exports", "Reader", "main", "read_apart"]


@dataclass(frozen=True, slots=True)
class Exports:
    """What a body holds: spans, log records, or both."""

    spans: ExportTraceServiceRequest = field(default_factory=ExportTraceServiceRequest)
    logs: ExportLogsServiceRequest = field(default_factory=ExportLogsServiceRequest)


#: Reads a body. Returns what it holds, and a word about it. Raises Malformed.
Reader = Callable[[bytes], tuple[Exports, str]]

#: What the process that reads may take: bytes of memory and seconds.
MEMORY, SECONDS = 2 * 1024**3, 60

#: It writes so many spans or log records at a time, since reading them holds up other threads too.
_AT_A_TIME = 2_000

_MALFORMED = 3
#: Before each piece: its length, and whether it is of logs.
_HEAD = struct.Struct("<I?")

_BOOT = "import sys, importlib; importlib.import_module(sys.argv[1]).main(*sys.argv[2:])"


def read_apart(body: bytes, reader: Reader) -> tuple[Exports, str]:
    """Return what *reader*, a function of a module, returns. Raises Malformed and TooLarge."""
    if not sys.executable:  # embedded in another program
        return reader(body)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _BOOT, __name__, reader.__module__, reader.__name__],
            input=body,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            timeout=2 * SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise TooLarge(f"the body takes more than {2 * SECONDS} seconds to read") from None
    if done.returncode == _MALFORMED:
        raise Malformed(done.stderr.decode())
    if done.returncode:
        raise TooLarge("the body takes too much memory or time to read")
    exports, at = Exports(), 0
    while at < len(done.stdout):
        length, is_of_logs = _HEAD.unpack_from(done.stdout, at)
        at += _HEAD.size + length
        request: Message = exports.logs if is_of_logs else exports.spans
        request.MergeFromString(done.stdout[at - length : at])
    return exports, done.stderr.decode()


def main(module: str, name: str) -> None:
    """Read the body on standard input, and write the export in pieces of protobuf."""
    with suppress(ValueError, OSError):  # a system that does not limit memory
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    reader: Reader = getattr(import_module(module), name)
    try:
        exports, word = reader(sys.stdin.buffer.read())
    except Malformed as exc:
        sys.stderr.write(str(exc))
        sys.exit(_MALFORMED)
    for pieces, is_of_logs in (
        (_pieces(exports.spans), False),
        (_pieces_of_logs(exports.logs), True),
    ):
        for piece in pieces:
            data = piece.SerializeToString()
            sys.stdout.buffer.write(_HEAD.pack(len(data), is_of_logs) + data)
    sys.stderr.write(word)


def _pieces(request: ExportTraceServiceRequest) -> Iterator[Message]:
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            spans = scope_spans.spans
            for at in range(0, len(spans), _AT_A_TIME):
                scope = ScopeSpans(
                    scope=scope_spans.scope,
                    schema_url=scope_spans.schema_url,
                    spans=spans[at : at + _AT_A_TIME],
                )
                whole = ResourceSpans(
                    resource=resource_spans.resource,
                    schema_url=resource_spans.schema_url,
                    scope_spans=[scope],
                )
                yield ExportTraceServiceRequest(resource_spans=[whole])


def _pieces_of_logs(request: ExportLogsServiceRequest) -> Iterator[Message]:
    for resource_logs in request.resource_logs:
        for scope_logs in resource_logs.scope_logs:
            logs = scope_logs.log_records
            for at in range(0, len(logs), _AT_A_TIME):
                scope = ScopeLogs(
                    scope=scope_logs.scope,
                    schema_url=scope_logs.schema_url,
                    log_records=logs[at : at + _AT_A_TIME],
                )
                whole = ResourceLogs(
                    resource=resource_logs.resource,
                    schema_url=resource_logs.schema_url,
                    scope_logs=[scope],
                )
                yield ExportLogsServiceRequest(resource_logs=[whole])
