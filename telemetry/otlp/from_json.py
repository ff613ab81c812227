"""OTLP in JSON: ids in hexadecimal digits, where protobuf's own JSON has base64.

A large export is read in a process of its own. Its objects are built in one call of C, which holds
up every other thread, and take ten times the memory of their text.
"""

import base64
import json
import os
import re
import resource
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans

from .bounds import Malformed, TooLarge

__all__ = ["ID_FIELDS", "from_json", "read_apart", "spans_in"]

ID_FIELDS = ("traceId", "spanId", "parentSpanId")

#: What the process that reads may take: bytes of memory and seconds.
MEMORY, SECONDS = 2 * 1024**3, 60

#: It writes so many spans at a time, since reading them holds up other threads too.
_AT_A_TIME = 2_000

_MALFORMED = 3
_LENGTH = struct.Struct("<I")

_BOOT = "import sys, importlib; importlib.import_module(sys.argv[1]).main()"


Export = TypeVar("Export", ExportTraceServiceRequest, ExportLogsServiceRequest)


def from_json(body: bytes, kind: type[Export]) -> Export:
    """Read an export of that *kind* from *body*. Raises Malformed."""
    request = kind()
    names = _NAMES[kind]
    try:
        document = json.loads(body)
        if not isinstance(document, dict):
            raise Malformed(f"the body is not a JSON object with {names[0]}")
        _check_numbers(document)
        for item in _items_in(document, names):
            _hex_to_base64(item)
            for link in item.get("links") or ():
                _hex_to_base64(link)
        json_format.ParseDict(document, request, ignore_unknown_fields=True)
    except Malformed:
        raise
    except RecursionError:
        raise Malformed("the body is no OTLP in JSON: it is nested too deeply") from None
    except (TypeError, AttributeError):
        raise Malformed(
            f"the body is no OTLP in JSON: {', '.join(names)} and links are arrays of objects"
        ) from None
    except (SystemError, UnicodeError):  # upb's, for half of a surrogate pair
        raise Malformed("the body is no OTLP in JSON: it has text that is no Unicode") from None
    except (ValueError, json_format.Error) as exc:
        raise Malformed(f"the body is no OTLP in JSON: {str(exc)[:300]}") from None
    return request


#: The numbers that JSON may have as strings: protobuf's integers of 64 bits, and its doubles.
_NUMBERS = {
    **dict.fromkeys(
        (
            "startTimeUnixNano",
            "endTimeUnixNano",
            "timeUnixNano",
            "observedTimeUnixNano",
            "intValue",
        ),
        re.compile("-?[0-9]+"),
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


def spans_in(document: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Yield the spans of an export in JSON."""
    return _items_in(document, _NAMES[ExportTraceServiceRequest])


#: What an export in JSON is made of, from the outside to the inside.
_NAMES: Mapping[type, tuple[str, str, str]] = {
    ExportTraceServiceRequest: ("resourceSpans", "scopeSpans", "spans"),
    ExportLogsServiceRequest: ("resourceLogs", "scopeLogs", "logRecords"),
}


def _items_in(document: Mapping[str, Any], names: Iterable[str]) -> Iterable[dict[str, Any]]:
    resources, scopes, items = names
    for outer in document.get(resources) or ():
        for scope in outer.get(scopes) or ():
            yield from scope.get(items) or ()


def _hex_to_base64(item: dict[str, Any]) -> None:
    """Convert the ids of *item* from hex, as in OTLP/JSON, to base64, as in protobuf's JSON."""
    for field in ID_FIELDS:
        if value := item.get(field):
            if not (isinstance(value, str) and _HEX.fullmatch(value)):
                raise Malformed(f"{field} is not in hexadecimal digits: {str(value)[:50]!r}")
            item[field] = base64.b64encode(bytes.fromhex(value)).decode()


_HEX = re.compile("([0-9a-fA-F]{2})+")


def read_apart(body: bytes, kind: type[Export]) -> Export:
    """Do what ``from_json`` does, in another process. Raises Malformed and TooLarge."""
    if not sys.executable:  # embedded in another program
        return from_json(body, kind)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _BOOT, __name__, kind.__name__],
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
    request, at = kind(), 0
    while at < len(done.stdout):
        (length,) = _LENGTH.unpack_from(done.stdout, at)
        at += _LENGTH.size + length
        request.MergeFromString(done.stdout[at - length : at])
    return request


def main() -> None:
    """Read an export in JSON from standard input, and write it in pieces of protobuf."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    try:
        body = sys.stdin.buffer.read()
        if sys.argv[2:] == [ExportLogsServiceRequest.__name__]:
            pieces = _pieces_of_logs(from_json(body, ExportLogsServiceRequest))
        else:
            pieces = _pieces(from_json(body, ExportTraceServiceRequest))
    except Malformed as exc:
        sys.stderr.write(str(exc))
        sys.exit(_MALFORMED)
    for piece in pieces:
        data = piece.SerializeToString()
        sys.stdout.buffer.write(_LENGTH.pack(len(data)) + data)


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
