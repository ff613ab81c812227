"""Import files as OTLP: those of this viewer, of the Collector, of Jaeger and of Tempo.

For a file in another format, the error names the format and the remedy.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ..otlp.admission import LARGE_OBJECTS, Ticket
from ..otlp.apart import read_apart
from ..otlp.bounds import MAX_IMPORTED, Malformed, check_json
from ..otlp.otlp_json import from_json
from ..otlp.server import gunzip
from ..otlp.signals import Exports
from .jaeger import JAEGER, from_jaeger

#: The largest size of a file after decompression, in bytes.
LARGEST = 128 * 1024 * 1024

GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"

KNOWN = (
    "The viewer opens OTLP as JSON or JSON lines, and the JSON of Jaeger and Tempo, "
    "also compressed with gzip"
)

#: Known JSON objects without spans: the name of a field, and the format of the file.
OTHERS = {
    "traceEvents": "a Chrome trace, the profile of one program",
    "resourceMetrics": "metrics in OTLP; the viewer shows traces and logs only",
    "resourceProfiles": "profiles in OTLP; the viewer shows traces and logs only",
    "traces": "the result of a search in Tempo, without spans; download one of its traces",
    "log": "a HAR file with the requests of a browser",
    "errors": "an error message of the other viewer, without spans",
    "error": "an error message of the other viewer, without spans",
    "message": "an error message of the other viewer, without spans",
}

#: The lengths of a trace id and a span id in base64, as Tempo writes them, and in bytes.
BASE64 = {24: 16, 12: 8}


@dataclass(frozen=True, slots=True)
class Imported:
    """The spans and log records of a file. *kind* is the name of its format."""

    request: ExportTraceServiceRequest
    kind: str
    log_request: ExportLogsServiceRequest = field(default_factory=ExportLogsServiceRequest)

    @property
    def spans(self) -> int:
        """The number of spans."""
        return sum(len(scope.spans) for scope in self._scopes())

    @property
    def logs(self) -> int:
        """The number of log records."""
        scopes = (scope for r in self.log_request.resource_logs for scope in r.scope_logs)
        return sum(len(scope.log_records) for scope in scopes)

    @property
    def trace_ids(self) -> list[str]:
        """The ids of its traces, in the order of the file."""
        ids = (span.trace_id.hex() for scope in self._scopes() for span in scope.spans)
        return list(dict.fromkeys(ids))

    def _scopes(self) -> Iterator[Any]:
        return (scope for r in self.request.resource_spans for scope in r.scope_spans)


def read_file(body: bytes, ticket: Ticket | None = None) -> Imported:
    """Read the spans and log records of a file.

    Raises Malformed, with a message for the user, or TooLarge. With a *ticket*, raises Busy if
    another large export is being read.
    """
    if body.startswith(GZIP):
        body = gunzip(body, LARGEST, ticket)
    if body.startswith(ZIP):
        raise Malformed(f"it is a zip archive: unpack it first. {KNOWN}")
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    if not body:
        raise Malformed("it is empty")
    if body[:1] not in (b"{", b"["):
        raise Malformed(f"it is not JSON. {KNOWN}")
    values = check_json(body, MAX_IMPORTED)
    if ticket is not None:
        ticket.fit(len(body), values)
    exports, kind = read_apart(body, read_json) if values > LARGE_OBJECTS else read_json(body)
    imported = Imported(exports.spans, kind, exports.logs)
    if not imported.spans and not imported.logs:
        raise Malformed(f"there are no spans in it: it is {imported.kind}, and empty")
    return imported


def read_json(body: bytes) -> tuple[Exports, str]:
    """Return the spans and log records of uncompressed JSON, and the name of the format."""
    try:
        return _import(list(_documents(body)))
    except RecursionError:
        raise Malformed("it is nested too deeply") from None


def _documents(body: bytes) -> Iterator[Any]:
    """Yield the JSON document of *body*, or one for each line."""
    try:
        yield json.loads(body)
        return
    except UnicodeDecodeError:
        raise Malformed(f"it is not text in UTF-8. {KNOWN}") from None
    except json.JSONDecodeError as exc:
        whole = exc
    lines = body.splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except ValueError as exc:
            # The first line of JSON lines is a whole object. That of a long document is not.
            if number == 1:
                raise Malformed(f"it is not JSON: {whole}") from None
            if number == len(lines):
                raise Malformed(f"line {number}, the last, ends too early: {exc}") from None
            raise Malformed(f"line {number} is not JSON: {exc}") from None
        yield document


def _import(documents: list[Any]) -> tuple[Exports, str]:
    first = documents[0]
    if isinstance(first, list):
        raise Malformed(f"it is {_list_kind(first)}. {KNOWN}")
    if not isinstance(first, dict):
        raise Malformed(f"it holds no object. {KNOWN}")
    if (traces := _jaeger_traces(documents)) is not None:
        return Exports(from_jaeger(traces)), JAEGER
    kind = "OTLP" if len(documents) == 1 else "OTLP, an export a line"
    spans: list[Any] = []
    logs: list[Any] = []
    found = False
    for document in documents:
        if not isinstance(document, dict):
            raise Malformed(f"it holds no object. {KNOWN}")
        inner = document.get("trace", document)  # the second version of Tempo's API
        if not isinstance(inner, dict):
            raise Malformed(f"it holds no object. {KNOWN}")
        for name in ("resourceSpans", "batches"):
            if name in inner:
                found = True
                spans += _sequence(inner[name], name)
                kind = "Tempo's JSON" if name == "batches" or inner is not document else kind
        if "resourceLogs" in inner:
            found = True
            logs += _sequence(inner["resourceLogs"], "resourceLogs")
    if not found:
        for name, what in OTHERS.items():
            if name in first:
                raise Malformed(f"it is {what}")
        raise Malformed(f"it is JSON of an unknown kind. {KNOWN}")
    for span in _spans(spans):
        _use_hex(span)
        for link in _sequence(span.get("links") or [], "links"):
            _use_hex(link)
    request = from_json(
        json.dumps({"resourceSpans": spans}).encode(), ExportTraceServiceRequest, MAX_IMPORTED
    )
    records = from_json(
        json.dumps({"resourceLogs": logs}).encode(), ExportLogsServiceRequest, MAX_IMPORTED
    )
    return Exports(request, records), kind


def _jaeger_traces(documents: list[Any]) -> list[Any] | None:
    """Return the traces if the document is a response of Jaeger's API or one trace, else None."""
    if len(documents) > 1:
        return None
    [document] = documents
    if "data" in document and isinstance(document["data"], list):
        traces = document["data"]
        # The responses of other endpoints are lists of names.
        if traces and not all(isinstance(t, dict) and "spans" in t for t in traces):
            raise Malformed("it is a response of Jaeger's API without spans; download a trace")
        return list(traces)
    return [document] if "spans" in document and "processes" in document else None


def _list_kind(items: list[Any]) -> str:
    first = items[0] if items else None
    if isinstance(first, list):
        first = first[0] if first else None
    if isinstance(first, dict):
        if "localEndpoint" in first or ("traceId" in first and "id" in first):
            return "Zipkin's JSON, which this viewer does not read"
        if "trace_id" in first and "meta" in first:
            return "Datadog's JSON, which this viewer does not read"
        if "ph" in first:
            return OTHERS["traceEvents"]
    return "a JSON list of an unknown kind"


def _spans(resource_spans: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield the spans. Rename the fields of old OTLP versions."""
    for resource in resource_spans:
        if not isinstance(resource, dict):
            raise Malformed("resourceSpans is not an array of objects")
        for old in ("instrumentationLibrarySpans", "ilSpans"):
            if old in resource:
                resource.setdefault("scopeSpans", []).extend(_sequence(resource.pop(old), old))
        for scope in _sequence(resource.get("scopeSpans") or [], "scopeSpans"):
            if not isinstance(scope, dict):
                raise Malformed("scopeSpans is not an array of objects")
            if "instrumentationLibrary" in scope:
                scope.setdefault("scope", scope.pop("instrumentationLibrary"))
            for span in _sequence(scope.get("spans") or [], "spans"):
                if not isinstance(span, dict):
                    raise Malformed("spans is not an array of objects")
                yield span


def _sequence(value: Any, name: str) -> Iterable[Any]:
    if not isinstance(value, list):
        raise Malformed(f"{name} is not an array")
    return value


def _use_hex(item: Any) -> None:
    """Convert the ids of a span or link from base64 to hex."""
    if not isinstance(item, dict):
        raise Malformed("a link is not an object")
    for name in ("traceId", "spanId", "parentSpanId"):
        value = item.get(name)
        if isinstance(value, str) and len(value) in BASE64 and value.endswith("="):
            try:
                raw = base64.b64decode(value, validate=True)
            except binascii.Error:
                continue
            if len(raw) == BASE64[len(value)]:
                item[name] = raw.hex()
