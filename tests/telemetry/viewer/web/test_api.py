"""The viewer as a process: requests that it accepts, its answers, and those that it refuses."""

import gzip
import json
import socket
import sqlite3
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, set_span_in_context

from ..conftest import StartViewer, Viewer
from ..exports import as_json, export, message, shown
from ..logs import export_logs, log
from ..spans import SENTENCE, TRACE, WORKER, many, order

JSON = "application/json"


def by_id(document: dict[str, Any]) -> dict[str, Any]:
    scopes = (scope for r in document["resourceSpans"] for scope in r["scopeSpans"])
    return {span["spanId"]: span for scope in scopes for span in scope["spans"]}


# In


def test_what_the_sdk_sends_over_grpc(viewer: Viewer) -> None:
    def tracer(service: str) -> TracerProvider:
        provider = TracerProvider(resource=Resource({"service.name": service}))
        exporter = OTLPSpanExporter(endpoint=viewer.grpc, compression=grpc.Compression.Gzip)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return provider

    web, worker = tracer("shop"), tracer("shop-worker")
    published = web.get_tracer("t").start_span("send charge", kind=SpanKind.PRODUCER)
    published.end()
    attributes = {"messaging.destination.name": "celery", "celery.task.name": "charge"}
    ran = worker.get_tracer("t").start_span(
        "process charge",
        set_span_in_context(published),
        SpanKind.CONSUMER,
        attributes=attributes,
        links=[Link(published.get_span_context())],
    )
    ran.record_exception(ValueError("no"))
    ran.end()
    worker.shutdown()
    web.shutdown()
    [row] = viewer.traces(task="charge", service="shop")
    assert (row["name"], row["spans"], row["services"]) == (
        *("send charge", 2, ["shop", "shop-worker"]),
    )
    rows = viewer.get(f"/api/traces/{row['trace_id']}/hops")["rows"]
    assert [r["kind"] for r in rows] == ["span", "wait", "span"]
    assert rows[2]["message"] == "ValueError: no"


def test_metrics_are_taken(viewer: Viewer) -> None:
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=viewer.grpc))
    provider = MeterProvider([reader])
    provider.get_meter("t").create_counter("c").add(1)
    assert provider.force_flush()
    provider.shutdown()
    assert viewer.post(b"", "/v1/metrics").status_code == 200
    assert viewer.post(b"{}", "/v1/metrics", Content_Type=JSON).json() == {}


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("kind", ["application/x-protobuf", JSON])
def test_otlp_over_http(viewer: Viewer, kind: str, encoding: str) -> None:
    request = export(order())
    body = json.dumps(as_json(request)).encode() if kind == JSON else request.SerializeToString()
    body = gzip.compress(body) if encoding == "gzip" else body
    answer = viewer.post(body, Content_Type=kind, Content_Encoding=encoding)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == kind
    assert answer.content == (b"{}" if kind == JSON else b"")
    [row] = viewer.traces()
    assert row["sentence"] == SENTENCE


def test_in_pieces_out_of_order_and_twice(viewer: Viewer) -> None:
    pieces = [export([part]) for part in order()]
    viewer.send(pieces[3], pieces[2])
    [row] = viewer.traces()
    assert row["spans"] == 2
    viewer.send(pieces[0], pieces[2], pieces[1], *pieces)
    [row] = viewer.wait_for(
        lambda: viewer.get("/api/traces")["traces"], lambda rows: rows[0]["spans"] == 4
    )
    assert (row["sentence"], row["status"], row["states"]) == (SENTENCE, "ok", {"SUCCESS": 1})
    assert viewer.settled(4)["traces"] == 1
    [queue] = viewer.get("/api/queues")["queues"]
    assert (queue["sent"], queue["runs"], queue["depth"]) == (1, 1, 0)


def test_what_cannot_be_kept_is_refused_and_the_rest_is_not(viewer: Viewer) -> None:
    good, no_id, short, late, large = (message(order()[0]) for _ in range(5))
    no_id.span_id = bytes(8)
    short.trace_id = b"short"
    late.end_time_unix_nano = 2**64 - 1
    large.attributes[0].value.string_value = "x" * (1024 * 1024)
    request = export([order()[0]])
    del request.resource_spans[0].scope_spans[0].spans[:]
    request.resource_spans[0].scope_spans[0].spans.extend([good, no_id, short, late, large])
    answer = ExportTraceServiceResponse.FromString(viewer.post(request.SerializeToString()).content)
    assert answer.partial_success.rejected_spans == 4
    assert "1 MiB" in answer.partial_success.error_message
    assert viewer.settled(1)["dropped"] == 4
    in_json = viewer.post(json.dumps(as_json(request)).encode(), Content_Type=JSON).json()
    assert in_json["partialSuccess"]["rejectedSpans"] == "4"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\xff\xff", {}, 400),
        (b"{", {"Content_Type": JSON}, 400),
        (b"[]", {"Content_Type": JSON}, 400),
        (b'{"resourceSpans": 7}', {"Content_Type": JSON}, 400),
        (
            b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "zz"}]}]}]}',
            {"Content_Type": JSON},
            400,
        ),
        (b'{"resourceSpans": ' + b"[" * 50_000, {"Content_Type": JSON}, 400),
        (b"not gzip", {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(b"x" * 100, mtime=0)[:-12], {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(bytes(65 * 1024 * 1024), mtime=0), {"Content_Encoding": "gzip"}, 413),
        (b"", {"Content_Encoding": "br"}, 415),
        (b"", {"Content_Type": "text/plain"}, 415),
    ],
)
def test_what_is_no_otlp(
    viewer: Viewer,
    body: bytes,
    headers: dict[str, str],
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = viewer.post(body, **headers)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert "Traceback" not in caplog.text


def test_a_body_that_is_too_large_is_not_read(viewer: Viewer) -> None:
    address = viewer.url.removeprefix("http://")
    with socket.create_connection(address.split(":")) as connection:  # type: ignore[arg-type]
        connection.sendall(
            f"POST /v1/traces HTTP/1.1\r\nHost: {address}\r\nContent-Length: 99999999999\r\n"
            "Content-Type: application/x-protobuf\r\n\r\n".encode()
        )
        assert b" 413 " in connection.recv(4096)


HOSTILE = "<script>alert(1)</script>\"'&\x00\x1b[2J\u202e💥" + "\ud7ff"


def test_hostile_values_come_out_as_they_went_in(viewer: Viewer) -> None:
    attributes = {
        HOSTILE: HOSTILE,
        "nan": float("nan"),
        "large": 2**62,
        "bytes": b"\x00\xff",
        "list": ["a", 1, True],
        "long": "x" * 100_000,
    }
    nasty = replace(
        order()[0], name=HOSTILE, attributes=attributes, resource={"service.name": HOSTILE}
    )
    nasty = replace(nasty, start_ns=2**62, end_ns=5)
    viewer.send(export([nasty]))
    [row] = viewer.traces()
    assert row["name"] == row["service"] == HOSTILE
    assert row["duration_ms"] == 0
    found = viewer.get(f"/api/traces/{TRACE}/spans/{shown('web')}")
    assert found["attributes"][HOSTILE] == HOSTILE
    assert found["attributes"]["nan"] == "nan"
    assert found["attributes"]["large"] == str(2**62)
    assert found["attributes"]["bytes"] == "AP8="
    assert found["attributes"]["list"] == ["a", 1, True]
    assert found["attributes"]["long"].endswith("… (100000 characters in all)")
    assert viewer.get("/api/facets")["services"] == [HOSTILE]
    assert len(viewer.traces(service=HOSTILE)) == 1


def test_an_export_that_is_empty(viewer: Viewer) -> None:
    viewer.send(ExportTraceServiceRequest())
    assert viewer.settled(0)["traces"] == 0


# Out


def test_a_span_in_full(viewer: Viewer) -> None:
    spans = order(error="OSError: gone")
    viewer.send(export(spans))
    viewer.settled(4)
    found = viewer.get(f"/api/traces/{TRACE}/spans/{shown('run')}")
    assert (found["parent_span_id"], found["kind"], found["service"], found["status"]) == (
        *(shown("send"), "CONSUMER", WORKER, "error"),
    )
    assert found["start_ns"] == str(spans[2].start_ns)
    assert found["duration_ms"] == 26
    assert found["attributes"]["celery.wait.queue"] == 0.38
    assert found["resource"]["service.name"] == WORKER
    assert found["events"][0]["attributes"]["exception.message"] == "gone"
    assert found["links"] == [
        {
            **{"trace_id": TRACE, "span_id": shown("send"), "attributes": {}, "known": True},
            **{"name": "send charge", "service": "shop"},
        }
    ]
    assert found["traceparent"] == f"00-{TRACE}-{shown('run')}-01"
    assert "no span" in viewer.get(f"/api/traces/{TRACE}/spans/{'0' * 16}", 404)["error"]
    assert "not found" in viewer.get(f"/api/traces/{'0' * 32}/hops", 404)["error"]
    assert "not a trace id" in viewer.get("/api/traces/nothing/hops", 404)["error"]


def test_spans_in_a_trace_are_found_by_a_text(viewer: Viewer) -> None:
    viewer.send(export(order(error="OSError: gone")))
    viewer.settled(4)
    search = f"/api/traces/{TRACE}/matches"
    assert viewer.get(search, q="oserror") == {"span_ids": [shown("run")]}
    assert viewer.get(search) == {"span_ids": []}
    assert "not found" in viewer.get(f"/api/traces/{'0' * 32}/matches", 404, q="x")["error"]


def test_what_goes_out_comes_in_again(viewer: Viewer, start_viewer: StartViewer) -> None:
    sent = export(order(error="OSError: gone"))
    viewer.send(sent)
    logged = export_logs([log("no card", TRACE, "run", card="é")])
    assert viewer.post(logged.SerializeToString(), "/v1/logs").status_code == 200
    viewer.settled(4)
    answer = requests.get(f"{viewer.url}/api/traces/{TRACE}?download=1", timeout=30)
    assert f"trace-{TRACE}.json" in answer.headers["Content-Disposition"]
    assert by_id(answer.json()) == by_id(as_json(sent))
    other = start_viewer()
    taken = other.post(answer.content, "/api/import", Content_Type=JSON)
    assert taken.json() == {
        "accepted": 4,
        "logs": 1,
        "traces": 1,
        "trace_id": TRACE,
        "format": "OTLP",
    }
    other.settled(4)
    logs = [v.get(f"/api/traces/{TRACE}/logs", span_id=shown("run")) for v in (other, viewer)]
    assert logs[0]["logs"][0]["attributes"] == {"card": "é"}
    assert logs[0] == logs[1]
    theirs, ours = (v.get(f"/api/traces/{TRACE}/hops") for v in (other, viewer))
    assert theirs["rows"] == ours["rows"]


def test_finding(viewer: Viewer) -> None:
    slow = {"celery__task__name": "report", "messaging__destination__name": "slow"}
    viewer.send(
        export(order("a" * 32)),
        export(order("b" * 32, error="OSError: gone", **slow)),
        export(order("c" * 32)[:2]),
        export(order("d" * 32)[:1]),
    )
    viewer.settled(4 + 4 + 2 + 1)

    def ids(**query: object) -> str:
        return "".join(row["trace_id"][0] for row in viewer.get("/api/traces", **query)["traces"])

    assert ids() == "dcba"
    assert ids(task="report") == "b"
    assert ids(task="charge", queue="slow") == "b"
    assert ids(queue="celery") == "cba"
    assert ids(route="/orders", service=WORKER) == "ba"
    assert ids(status="error") == "b"
    assert ids(status="waiting") == "c"
    assert ids(status="ok") == "da"
    assert ids(min_ms=1, min_wait_ms=300, status="ok") == "a"
    assert ids(trace_id="B") == "b"
    assert ids(trace_id="b" * 31) == "b"
    assert ids(trace_id="bc") == ""
    assert ids(service="nobody") == ""
    assert ids(since_s=3600) == "dcba"
    assert ids(since_s=9e14) == "dcba"
    assert ids(**{"from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"}) == ""
    assert ids(min_ms=9e14) == ids(min_wait_ms=9e14) == ""
    assert ids(sort="duration")[-1] == "d"
    assert set(ids(sort="wait", limit=2)) <= set("abc")
    assert viewer.get("/api/facets") == {
        "services": ["shop", WORKER],
        "tasks": ["charge", "report"],
        "queues": ["celery", "slow"],
        "routes": ["/orders"],
    }


@pytest.mark.parametrize("sort", ["recent", "duration", "wait"])
def test_page_by_page_each_is_there_once(viewer: Viewer, sort: str) -> None:
    viewer.send(*map(export, many(7)))
    viewer.settled(28)
    found: list[str] = []
    before = ""
    for _ in range(4):
        page = viewer.get("/api/traces", sort=sort, limit=2, before=before)
        found += [row["trace_id"] for row in page["traces"]]
        before = page["next"]
    assert before is None
    assert len(found) == len(set(found)) == 7


@pytest.mark.parametrize(
    "query",
    ["status=x", "sort=x", "min_ms=x", "min_ms=-1", "min_ms=nan", "trace_id=xyz", "before=x",
     f"before={10**20}:1", "since_s=x", "limit=x", "from=x", "from=2026-01-01T00:00",
     "to=yesterday", f"to={'9' * 30}"],
)  # fmt: skip
def test_a_question_that_makes_no_sense(viewer: Viewer, query: str) -> None:
    error = viewer.get(f"/api/traces?{query}", 400)["error"]
    assert query.partition("=")[0] in error


def test_a_search_that_cannot_be_read_is_refused_with_its_place(viewer: Viewer) -> None:
    answer = viewer.get("/api/traces", 400, q="charge wait>soon")
    assert answer["position"] == 12
    assert "'soon' is not a duration" in answer["error"]
    assert viewer.get("/api/suggest", q="charge wa")["suggestions"][0]["text"] == "wait>"


def test_queues_and_map(viewer: Viewer) -> None:
    viewer.send(*map(export, many(20)))
    failed = order("f" * 32, error="OSError: no", celery__task__state="FAILURE")
    retry = order("e" * 32, error="OSError: no", celery__task__state="RETRY")
    viewer.send(export(failed), export(retry), export(order("d" * 32)[:2]))
    viewer.settled(20 * 4 + 4 + 4 + 2)
    answer = viewer.get("/api/queues", since_s=600)
    [queue] = answer["queues"]
    assert (queue["queue"], queue["tasks"], queue["state"]) == ("celery", ["charge"], "waiting")
    assert (queue["sent"], queue["runs"], queue["depth"]) == (23, 22, 1)
    assert (queue["failures"], queue["retries"]) == (1, 1)
    assert queue["exceptions"] == [{"type": "OSError", "count": 2}]
    assert queue["wait_ms"]["p50"] == pytest.approx(380, rel=0.03)
    assert queue["run_ms"]["p99"] == pytest.approx(26, rel=0.03)
    assert queue["out_per_s"] == pytest.approx(queue["in_per_s"] * 22 / 23)
    assert sum(point["runs"] for point in queue["series"]) == 22
    assert queue["series"][-1]["depth"] == 1
    assert all(point["t"] % answer["bucket_s"] == 0 for point in queue["series"])
    assert "since_s" in viewer.get("/api/queues", 400, since_s="x")["error"]

    found = viewer.get("/api/map")
    nodes = {node["id"]: node for node in found["nodes"]}
    assert set(nodes) == {"service:shop", "queue:celery", f"service:{WORKER}", "store:redis"}
    edges = {(edge["from"], edge["to"]): edge for edge in found["edges"]}
    assert set(edges) == {
        ("service:shop", "queue:celery"),
        ("queue:celery", f"service:{WORKER}"),
        (f"service:{WORKER}", "store:redis"),
    }
    assert edges["service:shop", "queue:celery"]["count"] == 23
    assert edges["queue:celery", f"service:{WORKER}"]["p50_ms"] == pytest.approx(380, rel=0.03)
    assert nodes["store:redis"]["count"] == 22
    assert nodes[f"service:{WORKER}"]["errors"] == 1


def test_a_run_in_a_trace_of_its_own_ends_the_wait_of_its_send(viewer: Viewer) -> None:
    spans = order()
    alone = replace(spans[2], trace_id="e" * 32, parent_id="")
    viewer.send(export(spans[:2]))
    viewer.traces(status="waiting")
    viewer.send(export([alone]))
    viewer.traces(count=2, status="ok")
    rows = viewer.get(f"/api/traces/{'e' * 32}/hops")["rows"]
    assert [row["kind"] for row in rows] == ["wait", "span"]
    [link] = viewer.get(f"/api/traces/{'e' * 32}/spans/{shown('run')}")["links"]
    assert link["trace_id"] == TRACE
    assert link["known"]
    [back] = viewer.get(f"/api/traces/{TRACE}/spans/{shown('send')}")["linked_from"]
    assert (back["trace_id"], back["name"], back["later_ms"]) == ("e" * 32, "process charge", 379.5)


def test_pages_hear_of_traces_as_they_arrive(viewer: Viewer) -> None:
    with requests.get(f"{viewer.url}/api/events", stream=True, timeout=30) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        lines = stream.iter_lines(decode_unicode=True)
        assert next(line for line in lines if line) == "retry: 2000"
        viewer.send(export(order()))
        assert next(line for line in lines if line == "event: trace")
        row = json.loads(next(lines).removeprefix("data: "))
        assert row == viewer.get("/api/traces")["traces"][0]
        assert next(line for line in lines if line == "event: stats")
        assert json.loads(next(lines).removeprefix("data: "))["spans"] == 4


def test_so_many_pages_may_listen(viewer: Viewer) -> None:
    streams = []
    try:
        for _ in range(32):
            stream = requests.get(f"{viewer.url}/api/events", stream=True, timeout=30)
            assert stream.status_code == 200
            streams.append(stream)
        assert "too many" in viewer.get("/api/events", 503)["error"]
    finally:
        for stream in streams:
            stream.close()


# Hosts and origins


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:{port}", 200),
        ("127.0.0.1:{port}", 200),
        ("[::1]:{port}", 200),
        ("LOCALHOST", 200),
        ("evil.example", 421),
        ("evil.example:{port}", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost@evil.example", 421),
        ("[", 421),
        ("", 421),
    ],
)
def test_other_hosts_are_refused(viewer: Viewer, host: str, status: int) -> None:
    host = host.format(port=viewer.url.rpartition(":")[2])
    for path in ("/api/traces", "/api/stats", "/healthz"):
        answer = requests.get(viewer.url + path, headers={"Host": host}, timeout=30)
        assert answer.status_code == status
    answer = requests.post(viewer.url + "/v1/traces", b"", headers={"Host": host}, timeout=30)
    assert answer.status_code == (415 if status == 200 else 421)


def test_nothing_may_be_embedded_or_fetched_from_elsewhere(viewer: Viewer) -> None:
    for path in ("/", "/api/traces", "/nowhere", "/api/traces?sort=x"):
        headers = requests.get(viewer.url + path, timeout=30).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert not [name for name in headers if name.startswith("Access-Control")]
    answer = requests.options(
        viewer.url + "/v1/traces",
        headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
        timeout=30,
    )
    assert not [name for name in answer.headers if name.startswith("Access-Control")]


def test_a_file_that_was_taken_is_there_at_once(start_viewer: StartViewer, tmp_path: Path) -> None:
    """The page shows the trace of an opened file next, and the database may be busy."""
    viewer = start_viewer(db=str(tmp_path / "busy.db"))

    def open_file() -> int:
        body = json.dumps(as_json(export(order()))).encode()
        viewer.post(body, "/api/import", Content_Type=JSON).raise_for_status()
        return requests.get(f"{viewer.url}/api/traces/{TRACE}/hops", timeout=30).status_code

    with (
        ThreadPoolExecutor(1) as pool,
        closing(sqlite3.connect(tmp_path / "busy.db", isolation_level=None)) as busy,
    ):
        busy.execute("BEGIN IMMEDIATE")
        opened = pool.submit(open_file)
        wait([opened], timeout=0.5)  # an answer that did not wait would have come by then
        busy.execute("ROLLBACK")
        assert opened.result() == 200


def test_of_a_file_that_could_not_be_written_that_is_said(
    start_viewer: StartViewer, tmp_path: Path
) -> None:
    viewer = start_viewer(db=str(tmp_path / "busy.db"))
    body = json.dumps(as_json(export(order()))).encode()
    with closing(sqlite3.connect(tmp_path / "busy.db", isolation_level=None)) as busy:
        busy.execute("BEGIN IMMEDIATE")
        answer = viewer.post(body, "/api/import", Content_Type=JSON)
        busy.execute("ROLLBACK")
    assert answer.status_code == 503
    assert answer.json() == {
        "error": "the spans were not written: cannot write to the database: database is locked"
    }


def test_files_are_taken_from_the_own_page_only(viewer: Viewer) -> None:
    body = json.dumps(as_json(export(order()))).encode()
    refused = viewer.post(body, "/api/import", Content_Type=JSON, Origin="http://evil.example")
    assert refused.status_code == 403
    refused = viewer.post(body, "/api/import", Content_Type="text/plain")
    assert refused.status_code == 415
    taken = viewer.post(body, "/api/import", Content_Type=JSON, Origin=viewer.url)
    assert taken.json()["accepted"] == 4


@pytest.mark.parametrize(
    "path", ["/static/../api.py", "/static/..%2fapi.py", "/static//etc/passwd"]
)
def test_only_the_page_is_served(viewer: Viewer, path: str) -> None:
    session = requests.Session()
    request = requests.Request("GET", viewer.url).prepare()
    request.url = viewer.url + path
    assert session.send(request, timeout=30).status_code == 404
