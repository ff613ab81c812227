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
from importlib import import_module

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans

from .bounds import Malformed, TooLarge

__all__ = ["Reader", "main", "read_apart"]

#: Reads a body. Returns the export, and a word about the body. Raises Malformed.
Reader = Callable[[bytes], tuple[ExportTraceServiceRequest, str]]

#: What the process that reads may take: bytes of memory and seconds.
MEMORY, SECONDS = 2 * 1024**3, 60

#: It writes so many spans at a time, since reading them holds up other threads too.
_AT_A_TIME = 2_000

_MALFORMED = 3
_LENGTH = struct.Struct("<I")

_BOOT = "import sys, importlib; importlib.import_module(sys.argv[1]).main(*sys.argv[2:])"


def read_apart(body: bytes, reader: Reader) -> tuple[ExportTraceServiceRequest, str]:
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
    request, at = ExportTraceServiceRequest(), 0
    while at < len(done.stdout):
        (length,) = _LENGTH.unpack_from(done.stdout, at)
        at += _LENGTH.size + length
        request.MergeFromString(done.stdout[at - length : at])
    return request, done.stderr.decode()


def main(module: str, name: str) -> None:
    """Read the body on standard input, and write the export in pieces of protobuf."""
    with suppress(ValueError, OSError):  # a system that does not limit memory
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    reader: Reader = getattr(import_module(module), name)
    try:
        request, word = reader(sys.stdin.buffer.read())
    except Malformed as exc:
        sys.stderr.write(str(exc))
        sys.exit(_MALFORMED)
    for piece in _pieces(request):
        data = piece.SerializeToString()
        sys.stdout.buffer.write(_LENGTH.pack(len(data)) + data)
    sys.stderr.write(word)


def _pieces(request: ExportTraceServiceRequest) -> Iterator[ExportTraceServiceRequest]:
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
