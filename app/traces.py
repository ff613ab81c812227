"""The traces that the demo prints, read from the viewer's API."""

import json
from collections.abc import Iterator
from urllib.parse import urlencode
from urllib.request import urlopen

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from telemetry.otlp.decode import ReceivedSpan, decode
from telemetry.otlp.server import JSON, parse

#: Seconds that an answer may take, and the traces in one page, at most.
TIMEOUT, PAGE_SIZE = 10.0, 200


class ReceivedTraces:
    """The traces that the viewer at *url* has received. Reads again only those with new spans."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._traces: dict[str, list[ReceivedSpan]] = {}

    def read(self) -> list[list[ReceivedSpan]]:
        """Return the spans of each trace, the oldest trace first. Raises OSError."""
        found: dict[str, list[ReceivedSpan]] = {}
        for row in reversed(list(self._rows())):
            trace_id = str(row["trace_id"])
            spans = self._traces.get(trace_id, [])
            if len(spans) != row["spans"]:
                spans = decode(
                    parse(ExportTraceServiceRequest, self._get(f"/api/traces/{trace_id}"), JSON)
                )
                spans.sort(key=lambda span: span.start_ns)
            found[trace_id] = spans
        self._traces = found
        return list(found.values())

    def _rows(self) -> Iterator[dict[str, str | int]]:
        before: str | None = ""
        while before is not None:
            query = urlencode({"limit": PAGE_SIZE, "before": before})
            page = json.loads(self._get(f"/api/traces?{query}"))
            yield from page["traces"]
            before = page["next"]

    def _get(self, path: str) -> bytes:
        with urlopen(f"{self._url}{path}", timeout=TIMEOUT) as answer:
            body: bytes = answer.read()
            return body
