"""The store of traces after a restart, at its limits, and on a full disk."""

import queue
import signal
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import requests
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceResponse,
)

from telemetry.viewer.analysis.summary import Summary
from telemetry.viewer.store import trace_store
from telemetry.viewer.store.database import MEMORY, Database
from telemetry.viewer.store.trace_store import Bounds, Store

from ..conftest import StartViewer, Viewer
from ..exports import export
from ..spans import SENTENCE, many, order


def test_a_restart_has_what_there_was(start_viewer: StartViewer, tmp_path: Path) -> None:
    first = start_viewer()
    first.send(*map(export, many(3)), export(order("f" * 32)[:2]))
    before = first.settled(14)
    numbers = ("sent", "runs", "depth", "wait_ms", "run_ms")

    def counted(viewer: Viewer) -> list[list[object]]:
        queues = viewer.get("/api/queues", since_s=3600)["queues"]
        return [[queue[number] for number in numbers] for queue in queues]

    queues = counted(first)
    assert first.process.stop() == 0
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["traces.db"]
    second = start_viewer()
    assert second.settled(14)["traces"] == before["traces"] == 4
    assert [row["sentence"] for row in second.traces(3, status="ok")] == [SENTENCE] * 3
    assert counted(second) == queues
    second.send(export(order("f" * 32)))
    assert len(second.traces(4, status="ok")) == 4


def test_spans_that_were_taken_are_there_after_it_was_killed(start_viewer: StartViewer) -> None:
    first = start_viewer()
    first.send(export(order()))
    first.wait_for(lambda: first.get("/api/stats"), lambda stats: stats["spans"] == 4)
    first.process.kill()
    [row] = start_viewer().traces()
    assert row["sentence"] == SENTENCE


def test_spans_that_are_not_summarized_yet_are_counted_after_a_restart(tmp_path: Path) -> None:
    with closing(Store(Database(tmp_path / "traces.db"))) as store:
        store.take(export(order()))
        assert store.wait_until_written(30) == ""
    with closing(Store(Database(tmp_path / "traces.db"))) as store:
        assert store.spans == 4


def test_of_too_many_spans_the_oldest_traces_go(start_viewer: StartViewer) -> None:
    viewer = start_viewer("--max-spans", "40")
    viewer.send(*map(export, many(30)))
    viewer.wait_for(
        lambda: viewer.get("/api/stats"),
        lambda stats: stats["spans"] == 40 and not stats["pending"],
    )
    rows = viewer.traces(10, limit=100)
    assert [row["trace_id"] for row in rows] == [f"{n:032x}" for n in range(30, 20, -1)]
    assert viewer.get("/api/traces", trace_id=f"{1:032x}")["traces"] == []
    assert viewer.get(f"/api/traces/{1:032x}/hops", 404)["error"]


def test_with_a_trace_goes_what_only_its_spans_came_from(tmp_path: Path) -> None:
    store = Store(Database(tmp_path / "traces.db"), Bounds(max_spans=4))
    try:
        for number, spans in enumerate(many(5)):
            named = [replace(s, resource={**s.resource, "service.instance.id": f"{number}"})
                     for s in spans]  # fmt: skip
            store.take(export(named))
            assert store.wait_until_written(30) == ""
    finally:
        store.close()
    with closing(sqlite3.connect(tmp_path / "traces.db")) as db:
        orphans = "SELECT count(*) FROM sources WHERE id NOT IN (SELECT source FROM spans)"
        missing = "SELECT count(*) FROM spans WHERE source NOT IN (SELECT id FROM sources)"
        assert db.execute("SELECT count(*) FROM spans").fetchone() == (4,)
        assert db.execute(orphans).fetchone() == db.execute(missing).fetchone() == (0,)


def test_what_is_too_old_goes(start_viewer: StartViewer) -> None:
    viewer = start_viewer("--max-age", "1")
    viewer.send(export(order()))
    viewer.settled(4)
    viewer.settled(0)
    assert viewer.get("/api/traces")["traces"] == []


def test_the_database_is_its_owners_alone(start_viewer: StartViewer, tmp_path: Path) -> None:
    start_viewer(db="")
    path = tmp_path / ".local" / "state" / "queuehop" / "traces.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_in_memory_nothing_is_left(start_viewer: StartViewer, tmp_path: Path) -> None:
    viewer = start_viewer(db=":memory:")
    viewer.send(export(order()))
    viewer.settled(4)
    viewer.process.signal(signal.SIGINT)
    assert viewer.process.wait() == 0
    assert list(tmp_path.iterdir()) == []
    assert viewer.process.output == f"traces at {viewer.url}/"


def test_a_full_disk_is_said_and_spans_are_refused(
    start_viewer: StartViewer, tmp_path: Path
) -> None:
    viewer = start_viewer()
    viewer.send(export(order()))
    viewer.settled(4)
    # If another process locks the database, the viewer cannot write, as on a full disk.
    with sqlite3.connect(tmp_path / "traces.db") as other:
        other.execute("BEGIN IMMEDIATE")
        viewer.send(export(order("b" * 32)))
        viewer.process.wait_for_line("cannot write to")
        answer = ExportTraceServiceResponse.FromString(
            viewer.post(export(order("c" * 32)).SerializeToString()).content
        )
        assert answer.partial_success.rejected_spans == 4
        assert "cannot write to" in viewer.get("/healthz", 503)["error"]
        other.rollback()
    other.close()
    viewer.wait_for(
        lambda: requests.get(f"{viewer.url}/healthz", timeout=30).status_code,
        lambda status: status == 200,
    )
    viewer.send(export(order("d" * 32)))
    viewer.traces(trace_id="d")


def test_a_database_that_is_deleted_is_said_and_spans_are_refused(
    start_viewer: StartViewer, tmp_path: Path
) -> None:
    viewer = start_viewer()
    viewer.send(export(order()))
    viewer.settled(4)
    for file in tmp_path.glob("traces.db*"):
        file.unlink()
    viewer.process.wait_for_line("traces.db: the file was deleted or replaced; restart the viewer")
    answer = ExportTraceServiceResponse.FromString(
        viewer.post(export(order("b" * 32)).SerializeToString()).content
    )
    assert answer.partial_success.rejected_spans == 4
    assert "restart the viewer" in viewer.get("/healthz", 503)["error"]
    assert "restart the viewer" in viewer.get("/api/stats")["failing"]
    # Readers that are open still have the old file. No reader creates a new one.
    ask = partial(requests.get, f"{viewer.url}/api/queues", timeout=30)
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(ask) for _ in range(64)]
    for found in answers:
        if found.result().status_code != 200:
            assert found.result().status_code == 503
            assert "deleted or replaced" in found.result().json()["error"]
    assert list(tmp_path.iterdir()) == []


def test_what_a_full_disk_did_not_take_is_not_counted(tmp_path: Path) -> None:
    class Disk(Database):
        """A disk on which a transaction fails at its end, as on a full disk."""

        full = False

        @contextmanager
        def writing(self) -> Iterator[sqlite3.Connection]:
            with super().writing() as db:
                yield db
                if self.full:
                    raise sqlite3.OperationalError("disk I/O error")

    disk = Disk(tmp_path / "traces.db")
    store = Store(disk)
    try:
        store.take(export(order()))
        assert store.wait_until_written(30) == ""
        disk.full = True
        store.take(export(order("b" * 32)))
        assert "disk I/O error" in store.wait_until_written(30)
        assert (store.spans, store.traces) == (4, 1)
    finally:
        disk.full = False
        store.close()


def test_a_database_in_memory_is_not_closed_while_a_page_is_read() -> None:
    database = Database(MEMORY)
    closing = threading.Thread(target=database.close)
    with database.reading() as db:
        closing.start()
        closing.join(0.2)  # without an error, nothing happens
        assert closing.is_alive()
        assert db.execute("SELECT count(*) FROM spans").fetchone() == (0,)
    closing.join(30)
    assert not closing.is_alive()


def test_a_small_export_does_not_wait_for_a_large_one(tmp_path: Path) -> None:
    class Disk(Database):
        """A disk that is slow until ``is_fast`` is set."""

        is_fast = threading.Event()

        @contextmanager
        def writing(self) -> Iterator[sqlite3.Connection]:
            self.is_fast.wait()
            with super().writing() as db:
                yield db

    large = ExportLogsServiceRequest()
    records = large.resource_logs.add().scope_logs.add().log_records
    for number in range(60_000):
        records.add(time_unix_nano=number + 1)
    disk = Disk(tmp_path / "traces.db")
    store = Store(disk)
    refused: list[int] = []
    thread = threading.Thread(target=lambda: refused.append(store.take_logs(large)[0]))
    try:
        thread.start()
        until = time.monotonic() + 60
        while store.pending() < 20_000 and time.monotonic() < until:
            time.sleep(0.01)
        assert store.take(export(order()))[0] == 0
    finally:
        disk.is_fast.set()
        thread.join()
        assert store.wait_until_written(60) == ""
        store.close()
    assert store.spans == 4
    assert store.logs + refused[0] == 60_000


def test_a_page_that_is_read_goes_before_the_summaries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    monkeypatch.setattr(trace_store, "SETTLE", 0)
    monkeypatch.setattr(trace_store, "LONGEST_PAUSE", 60.0)
    with closing(Store(Database(tmp_path / "traces.db"))) as store:
        told = listen(store)
        store.listen(lambda summary: happened.append("summary"))
        with store.reading() as db:
            store.take(export([span for spans in many(50) for span in spans]))
            assert store.wait_until_written(30) == ""
            for _ in range(20_000):
                db.execute("SELECT count(*) FROM spans").fetchone()
            happened.append("page")
        for _ in range(50):
            told.get(timeout=60)
    assert happened == ["page", *["summary"] * 50]


def test_a_page_that_is_never_read_to_its_end_stops_no_summary(tmp_path: Path) -> None:
    with closing(Store(Database(tmp_path / "traces.db"))) as store:
        told = listen(store)
        with store.reading():
            for spans in many(3):
                store.take(export(spans))
            for _ in range(3):
                told.get(timeout=60)


def listen(store: Store) -> "queue.SimpleQueue[Summary]":
    told: queue.SimpleQueue[Summary] = queue.SimpleQueue()
    store.listen(told.put)
    return told
