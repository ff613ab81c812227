"""``python -m telemetry view`` in the terminal: its lines, its errors, its ends."""

import signal
import socket
import sqlite3
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from telemetry.viewer.store.exclusive import exclusive

from ...processes import ROOT, Process
from .conftest import StartViewer
from .exports import export
from .spans import TRACE, order


def command(*argv: str, python: tuple[str, ...] = ("-m", "telemetry"), **env: str) -> Process:
    clean = {"PYTHONPATH": str(ROOT), "COLUMNS": "100", **env}
    return Process([sys.executable, *python, *argv], clean)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_one_url_and_ends_well(start_viewer: StartViewer, number: int) -> None:
    viewer = start_viewer()
    viewer.process.signal(number)
    assert viewer.process.wait() == 0
    assert viewer.process.output == f"traces at {viewer.url}/"


def test_it_ends_while_a_page_listens(start_viewer: StartViewer) -> None:
    viewer = start_viewer()
    address = viewer.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as page:
        page.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while b"retry:" not in page.recv(4096):
            pass
        viewer.process.signal(signal.SIGINT)
        assert viewer.process.wait(10) == 0
    assert "Traceback" not in viewer.process.output


@pytest.mark.parametrize("option", ["--grpc", "--http"])
def test_an_address_that_is_taken(option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = "--http" if option == "--grpc" else "--grpc"
        db = str(tmp_path / "traces.db")
        process = command("view", option, address, other, "127.0.0.1:0", "--db", db)
        assert process.wait() == 1
    [line] = process.lines
    assert address in line
    assert option in line


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--http", "nonsense"), "'nonsense' is not host:port"),
        (("--http", "127.0.0.1:99999"), "'127.0.0.1:99999' is not host:port"),
        (("--grpc", "user@127.0.0.1:1"), "is not host:port"),
        (("--max-spans", "0"), "'0' is not a whole number"),
        (("--max-age", "soon"), "'soon' is not a whole number"),
    ],
)
def test_options_that_make_no_sense(argv: tuple[str, ...], said: str) -> None:
    process = command("view", *argv)
    assert process.wait() == 2
    assert said in process.output


def test_a_database_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    path.write_text("no database" * 1000)
    process = command("view", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--db", str(path))
    assert process.wait() == 1
    [line] = process.lines
    assert str(path) in line
    assert "--db" in line


def test_a_database_that_another_viewer_uses(start_viewer: StartViewer, tmp_path: Path) -> None:
    db = str(tmp_path / "traces.db")
    viewer = start_viewer()
    other = command("view", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--db", db)
    assert other.wait() == 1
    assert other.lines == [
        f"{db} is used by another viewer (process {viewer.process.pid}): stop it, or choose "
        "another file with --db"
    ]
    viewer.send(export(order()))
    viewer.settled(4)
    assert viewer.process.stop() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["traces.db"]


def test_the_beginning_of_an_id_is_enough_if_one_trace_has_it(
    start_viewer: StartViewer, tmp_path: Path
) -> None:
    viewer = start_viewer()
    viewer.send(export(order()), export(order(f"{TRACE[:9]}{'0' * 23}")))
    viewer.settled(8)
    db = str(tmp_path / "traces.db")
    printed = command("view", TRACE[:10].upper(), "--db", db)
    assert printed.wait() == 0
    assert printed.lines[0].startswith(f"trace {TRACE}   4 spans, 2 processes")
    two = command("view", TRACE[:8], "--db", db)
    assert two.wait() == 1
    assert two.lines == [f"several traces begin with {TRACE[:8]}: give more characters of the id"]
    for other in ("no-id", f"{TRACE}0"):
        assert command("view", other, "--db", db).wait() == 1


def test_it_waits_for_a_viewer_that_is_about_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = str(tmp_path / "traces.db")
    with ExitStack() as other:
        other.enter_context(exclusive(db))
        monkeypatch.setattr(time, "sleep", lambda _: other.close())
        with exclusive(db):
            assert {path.name for path in tmp_path.iterdir()} == {"traces.db", "traces.db-viewer"}
    assert [path.name for path in tmp_path.iterdir()] == ["traces.db"]


def test_a_viewer_whose_lock_was_deleted_leaves_that_of_another(tmp_path: Path) -> None:
    db, lock = str(tmp_path / "traces.db"), tmp_path / "traces.db-viewer"
    with ExitStack() as other:
        with exclusive(db):
            lock.unlink()
            other.enter_context(exclusive(db))
        assert lock.exists()
    assert not lock.exists()


def test_a_database_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    process = command("view", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--db", str(path))
    assert process.wait() == 1
    assert "schema 99" in process.output


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = command("view", "--http", "127.0.0.1:0", "--db", str(tmp_path / "file" / "t.db"))
    assert process.wait() == 1
    assert len(process.lines) == 1


def test_a_grpc_client_at_the_http_address_is_one_line(start_viewer: StartViewer) -> None:
    viewer = start_viewer()
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", int(viewer.url.rpartition(":")[2]))) as client:
            client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert client.recv(100)
    assert viewer.process.stop() == 0
    told = [line for line in viewer.process.lines if "http://" not in line]
    assert [line.partition(":")[0] for line in told] == [
        "a client sends gRPC to the HTTP address, and its spans do not arrive"
    ]


def test_following_prints_each_complete_trace_once(start_viewer: StartViewer) -> None:
    viewer = start_viewer("--follow")
    whole = order()
    viewer.send(export(whole[2:]))
    viewer.traces(1)
    viewer.send(export(whole[:2]))
    viewer.process.wait_for_line(f"trace {TRACE}")
    viewer.process.wait_for_line("waited 380 ms in celery")
    viewer.process.wait_for_line("store  CLIENT redis")
    viewer.send(export(whole), export(order("d" * 32)))
    viewer.process.wait_for_line("trace " + "d" * 32)
    assert viewer.process.output.count("trace ") == 2


def test_following_prints_an_incomplete_trace_after_a_while(start_viewer: StartViewer) -> None:
    viewer = start_viewer("--follow")
    viewer.send(export(order()[1:]))
    viewer.send(export(order("e" * 32)[:2]))  # no worker has taken its message
    viewer.send(export(order("d" * 32)))
    viewer.process.wait_for_line("did not arrive")
    viewer.process.wait_for_line("trace " + "e" * 32)
    viewer.process.wait_for_line("⧗ waiting ")
    traces = [line.split()[1] for line in viewer.process.lines if line.startswith("trace ")]
    assert traces[0] == "d" * 32
    assert {*traces[1:]} == {TRACE, "e" * 32}


def test_following_prints_a_trace_again_that_has_got_more_spans(start_viewer: StartViewer) -> None:
    viewer = start_viewer("--follow")
    whole = order()
    viewer.send(export(whole[:1]))
    viewer.process.wait_for_line(f"trace {TRACE}   1 span, 1 process")
    viewer.send(export(whole[1:]))
    viewer.process.wait_for_line(f"trace {TRACE}   4 spans, 2 processes")
    viewer.send(export(whole), export(order("d" * 32)))
    viewer.process.wait_for_line("trace " + "d" * 32)
    assert viewer.process.output.count(f"trace {TRACE}") == 2


def test_one_trace_of_the_database(start_viewer: StartViewer, tmp_path: Path) -> None:
    viewer = start_viewer()
    viewer.send(export(order()))
    viewer.settled(4)
    db = str(tmp_path / "traces.db")
    beside = command("view", TRACE, "--db", db)
    assert beside.wait() == 0
    assert beside.lines[0].startswith(f"trace {TRACE}   4 spans, 2 processes")
    assert "waited 380 ms in celery" in beside.output
    viewer.process.stop()
    after = command("view", TRACE.upper(), "--db", db)
    assert after.wait() == 0
    assert after.lines == beside.lines
    assert [path.name for path in tmp_path.iterdir()] == ["traces.db"]


def test_a_trace_of_one_span_in_ascii(start_viewer: StartViewer, tmp_path: Path) -> None:
    viewer = start_viewer()
    viewer.send(export(order()[:1]))
    viewer.settled(1)
    printed = command("view", TRACE, "--db", str(tmp_path / "traces.db"), PYTHONIOENCODING="ascii")
    assert printed.wait() == 0
    assert printed.lines[0].startswith(f"trace {TRACE}   1 span, 1 process")
    assert "POST /orders" in printed.output
    assert printed.output.isascii()


def test_a_trace_that_is_not_there(start_viewer: StartViewer, tmp_path: Path) -> None:
    db = str(tmp_path / "traces.db")
    nothing = command("view", TRACE, "--db", db)
    assert nothing.wait() == 1
    assert nothing.lines == [f"there is no database {db}: give the viewer's with --db"]
    assert not Path(db).exists()
    start_viewer().process.stop()
    unknown = command("view", TRACE, "--db", db)
    assert unknown.wait() == 1
    assert unknown.lines == [f"trace {TRACE} is not in {db}"]


@pytest.mark.parametrize("missing", ["flask", "graphlay", "rich"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from telemetry.__main__ import main\nsys.exit(main(['view']))"
    )
    process = command(python=("-c", program))
    assert process.wait() == 1
    assert process.lines == [f"the viewer needs {missing}: pip install 'queuehop[viewer]'"]


def test_help_needs_no_extra() -> None:
    program = (
        "import sys; sys.modules.update(flask=None, rich=None, celery=None)\n"
        "from telemetry.__main__ import main\nsys.exit(main(['view', '--help']))"
    )
    process = command(python=("-c", program))
    assert process.wait() == 0
    assert "--max-spans" in process.output
