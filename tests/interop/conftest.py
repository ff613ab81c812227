"""The system for other tracers: a web process, a worker, and the receivers of their spans."""

import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver
from telemetry.requests import traced_session

from ..conftest import Broker, free_port
from ..in_process import Switch
from ..processes import Process, Starter
from ..receiving import PatientReceiver
from .environment import python_with
from .intake import Intake

APPLICATION = "tests.interop.application"


@dataclass
class Answer:
    """The result of one request."""

    trace_id: str
    #: The headers of the message: those at its top level, and those in its table "headers".
    top: dict[str, str]
    table: dict[str, str]
    #: The application's baggage, as the task has it.
    baggage: dict[str, str]


def starter(broker: Broker, receiver: Receiver, intake: Intake, state: str) -> Starter:
    """Start processes that have the tracers, and that send to *receiver* and *intake*."""
    return Starter(
        python=python_with("tracers"),
        CELERY_BROKER_URL=broker.url,
        INTAKE=intake.url,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        QUEUEHOP_STATE_DIR=state,
        DD_TRACE_AGENT_URL=intake.url,
        DD_TRACE_API_VERSION="v0.4",
        DD_CELERY_DISTRIBUTED_TRACING="true",
        DD_TRACE_STARTUP_LOGS="false",
        DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
        DD_REMOTE_CONFIGURATION_ENABLED="false",
    )


class Stand:
    """Runs the application beside other tracers; its spans and those of the tests arrive here."""

    def __init__(self, broker: Broker, receiver: Receiver, intake: Intake, state: str) -> None:
        self.receiver = receiver
        self.intake = intake
        self._session = traced_session()
        self._start = starter(broker, receiver, intake, state)

    def web(self, beside: str, first: str) -> tuple[Process, str]:
        """Start the web side beside a tracer; return it and its address."""
        address = f"127.0.0.1:{free_port()}"
        process = self._start(
            *("gunicorn", "--bind", address, f"{APPLICATION}:web"),
            BESIDE=beside, FIRST=first, SERVICE="web", OTEL_BSP_SCHEDULE_DELAY="100",
        )  # fmt: skip
        return process, f"http://{address}"

    def worker(self, beside: str, first: str, queue: str) -> Process:
        """Start a worker of *queue* beside a tracer. It may not be ready yet."""
        return self._start(
            *("celery", "-A", f"{APPLICATION}:app", "worker", "--loglevel=INFO", "-c", "1"),
            *("-Q", queue, "--without-gossip", "--without-mingle", "--without-heartbeat"),
            BESIDE=beside, FIRST=first, SERVICE="worker", OTEL_BSP_SCHEDULE_DELAY="100",
        )  # fmt: skip

    def get(self, url: str, **parameters: str) -> Answer:
        """Request *url* inside a span of the test's."""
        with trace.get_tracer("tests").start_as_current_span("client") as span:
            response = self._session.get(url, params=parameters, timeout=30)
            response.raise_for_status()
        return Answer(f"{span.get_span_context().trace_id:032x}", **response.json())

    def spans_of(self, trace_id: str, *ours: str) -> list[ReceivedSpan]:
        """Wait until hops with the names *ours* are in a trace; return all of its spans."""

        def found(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
            return [span for span in spans if span.trace_id == trace_id]

        def names(spans: list[ReceivedSpan]) -> list[str]:
            return [span.name for span in found(spans) if span.scope == "queuehop"]

        return found(
            self.receiver.wait_for(lambda spans: not Counter(ours) - Counter(names(spans)))
        )

    def let_go(self, *processes: Process) -> None:
        """Ask *processes* to end, without waiting for it."""
        for process in processes:
            process.signal(signal.SIGTERM)

    def end(self) -> None:
        """Wait until all processes have ended."""
        assert not list(self._start.end())


@pytest.fixture(scope="module")
def stand(
    broker_server: Broker, switch: Switch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    with PatientReceiver() as receiver, Intake() as intake:
        exporter = OTLPSpanExporter(endpoint=receiver.endpoint)
        switch.targets.append(exporter)
        stand = Stand(broker_server, receiver, intake, str(tmp_path_factory.mktemp("state")))
        yield stand
        stand.end()
        switch.targets.remove(exporter)
        exporter.shutdown()
