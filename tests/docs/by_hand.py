"""The two systems of docs/by_hand, traced by hand and by the library. Each runs all cases."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.request import urlopen

from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver

from ..conftest import free_port
from ..processes import ROOT, Process, Starter

FOLDER = ROOT / "docs" / "by_hand"

#: The number of spans of each case, in the order in which the cases begin.
BY_HAND = {
    "killed": 1,
    "ping": 4,
    "publish": 2,
    "retry": 3,
    "chord": 5,
    "stream": 2,
    "fork": 1,
    "recycled": 1,
}
WITH_QUEUEHOP = {
    "killed": 3,
    "ping": 5,
    "publish": 3,
    "retry": 5,
    "chord": 9,
    "stream": 2,
    "fork": 2,
    "recycled": 4,
}

#: The names of spans that are traces of their own where a case is more than one trace.
APART = {"chord": {"run part", "run whole"}, "stream": {"read the rows"}}

#: The page's commands. The tests run them on a port and with a broker of their own.
SERVER = "OTEL_SERVICE_NAME=server flask --app more_routes run"
WORKER = "OTEL_SERVICE_NAME=worker celery -A more_tasks worker --concurrency=1"
RECYCLED = f"{WORKER} --max-tasks-per-child=1"
CLIENT = "OTEL_SERVICE_NAME=client python -m client http://127.0.0.1:5000/ping"
FORK = "OTEL_SERVICE_NAME=server python -m fork"
CURL = "curl http://127.0.0.1:5000/"


def run_cases(folder: Path, broker: str, directory: Path, receiver: Receiver) -> None:
    """Run every case in *folder* once, and end all processes."""
    work = directory / "work"
    shutil.copytree(folder, work)
    start = Starter(
        CELERY_BROKER_URL=broker,
        CELERY_RESULT_BACKEND=broker,
        OTEL_BSP_SCHEDULE_DELAY="100",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        OTEL_METRICS_EXPORTER="none",
        PYTHONPATH=f"{ROOT}:{FOLDER}",
        QUEUEHOP_STATE_DIR=str(directory / "state"),
    )
    try:
        _run_cases(start, work, receiver)
    finally:
        problems = list(start.end())
    assert not problems


def _run_cases(start: Starter, work: Path, receiver: Receiver) -> None:
    port = free_port()
    web = f"http://127.0.0.1:{port}/"

    def run(command: str, *more: str, **env: str) -> Process:
        name, *words = command.replace("http://127.0.0.1:5000/", web).split()
        env = {"OTEL_SERVICE_NAME": name.split("=")[1], **env}
        return start(*(words[2:] if words[0] == "python" else words), *more, cwd=work, **env)

    server = run(SERVER, "--port", str(port))
    worker = run(WORKER, "--loglevel=INFO", "--without-mingle")
    server.wait_for_line("Running on")
    worker.wait_for_line(" ready.")
    # First: the spans that a child has not sent yet are lost with it.
    _get(f"{web}killed")
    worker.wait_for_line("WorkerLostError")
    client = run(CLIENT)
    assert client.wait() == 0, client.output
    for case in ("publish", "retry", "chord", "stream"):
        _get(web + case)
    # No timer sends the spans of a child that has just begun.
    fork = run(FORK, OTEL_BSP_SCHEDULE_DELAY="5000")
    assert fork.wait() == 0, fork.output
    # ping, the retry's second attempt, the chord's two parts and body, and what publishes it.
    worker.wait_for_line(" succeeded in ", count=6)
    receiver.wait_for(lambda spans: {"run whole", "process whole"} & {span.name for span in spans})
    receiver.wait_for(lambda spans: "fork" in {span.name for span in spans})
    worker.stop()
    worker = run(RECYCLED, "--loglevel=INFO", "--without-mingle", OTEL_BSP_SCHEDULE_DELAY="5000")
    worker.wait_for_line(" ready.")
    _get(f"{web}ping")
    worker.wait_for_line(" succeeded in ")
    worker.stop()
    receiver.wait_for(lambda spans: [span.kind for span in spans].count("SERVER") == 7)


def _get(url: str) -> None:
    with urlopen(url, timeout=10) as answer:
        answer.read()


def by_case(spans: Sequence[ReceivedSpan]) -> dict[str, list[ReceivedSpan]]:
    """Return *spans* by case, each by start. The cases begin one after the other."""
    ordered = sorted(spans, key=lambda span: span.start_ns)
    apart = {name for names in APART.values() for name in names}
    roots = [span for span in ordered if not span.parent_id and span.name not in apart]
    assert len(roots) == len(BY_HAND), [span.name for span in roots]
    cases = {}
    for case, root in zip(BY_HAND, roots, strict=True):
        names = APART.get(case, set())
        traces = {root.trace_id} | {span.trace_id for span in ordered if span.name in names}
        cases[case] = [span for span in ordered if span.trace_id in traces]
    return cases
