"""Whether spans are one complete trace of a ping."""

from dataclasses import replace

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link as SdkLink
from opentelemetry.trace import SpanKind, set_span_in_context

from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver
from telemetry.viewer.analysis.verdict import by_trace, judge

from ..pings import CLIENT, TRACE, WEB, WORKER


def test_a_whole_ping_is_one_trace(ping: dict[str, ReceivedSpan]) -> None:
    verdict = judge(list(ping.values()))
    assert verdict.ok
    assert (verdict.trace_id, verdict.spans, verdict.processes) == (TRACE, 6, 3)


def test_in_whatever_order_and_however_often_its_spans_come(ping: dict[str, ReceivedSpan]) -> None:
    spans = [*reversed(ping.values()), ping["run"], ping["root"]]
    verdict = judge(spans)
    assert verdict.ok
    assert verdict.spans == 6


def test_one_that_begins_at_the_web_side_crosses_two_processes(
    ping: dict[str, ReceivedSpan],
) -> None:
    del ping["root"], ping["request"]
    ping["server"] = replace(ping["server"], parent_id="")
    verdict = judge(list(ping.values()))
    assert verdict.ok
    assert verdict.processes == 2


def test_no_spans_are_no_trace() -> None:
    assert judge([]).reasons == ("no span arrived",)


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("root", "its root did not arrive"),
        ("request", "the parent of GET /ping (shop) did not arrive"),
        ("server", "the parent of send workers.tasks.ping (shop) did not arrive"),
        ("send", "the parent of process workers.tasks.ping (shop-worker) did not arrive"),
        ("run", "the run of workers.tasks.ping did not arrive"),
    ],
)
def test_a_missing_span_is_named(ping: dict[str, ReceivedSpan], missing: str, reason: str) -> None:
    del ping[missing]
    assert reason in judge(list(ping.values())).reasons


@pytest.mark.parametrize(
    ("which", "change", "reason"),
    [
        ("server", {"parent_id": ""}, "2 roots instead of one: ping, GET /ping"),
        ("server", {"kind": "INTERNAL"}, "GET /ping is INTERNAL instead of SERVER"),
        ("server", {"parent_id": "a1"}, "GET /ping is under ping, which is not a request"),
        ("root", {"kind": "PRODUCER"}, "ping is PRODUCER instead of INTERNAL or SERVER"),
        ("send", {"kind": "INTERNAL"}, "send workers.tasks.ping is INTERNAL instead of PRODUCER"),
        ("run", {"kind": "INTERNAL"}, "process workers.tasks.ping is INTERNAL instead of CONSUMER"),
        ("run", {"links": ()}, "process workers.tasks.ping does not link to its send"),
        ("run", {"parent_id": "b1"}, "process workers.tasks.ping is under GET /ping instead of"),
        ("request", {"kind": "SERVER"}, "GET is SERVER instead of CLIENT or INTERNAL"),
        ("store", {"resource": {}}, "1 span does not name a process"),
        ("store", {"trace_id": "f" * 32}, "2 traces instead of one"),
        ("store", {"kind": "SERVER"}, "SET is SERVER instead of CLIENT or INTERNAL"),
        ("server", {"parent_id": "c1"}, "some spans are their own ancestors"),
    ],
)
def test_what_is_wrong_is_said(
    ping: dict[str, ReceivedSpan], which: str, change: dict[str, object], reason: str
) -> None:
    ping[which] = replace(ping[which], **change)  # type: ignore[arg-type]
    reasons = judge(list(ping.values())).reasons
    assert any(said.startswith(reason) for said in reasons), reasons


def test_too_few_processes(ping: dict[str, ReceivedSpan]) -> None:
    for which in ("run", "store"):
        ping[which] = replace(ping[which], resource=WEB)
    assert judge(list(ping.values())).reasons == ("2 processes instead of at least 3",)


def test_a_retry_is_complete_with_its_last_run(ping: dict[str, ReceivedSpan]) -> None:
    again = replace(ping["send"], span_id="c3", parent_id="c1", kind="CLIENT")
    spans = [*ping.values(), again]
    assert judge(spans).reasons == ("the run of workers.tasks.ping did not arrive",)
    assert judge([*spans, replace(ping["run"], span_id="d1")]).ok


def test_a_publish_that_failed_has_no_run(ping: dict[str, ReceivedSpan]) -> None:
    del ping["run"], ping["store"]
    ping["send"] = replace(ping["send"], status="ERROR")
    assert "nothing was sent to a worker" in judge(list(ping.values())).reasons


def test_spans_that_the_sdk_made_and_sent(receiver: Receiver) -> None:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    def tracer(resource: dict[str, str]):
        provider = TracerProvider(resource=Resource(resource))
        provider.add_span_processor(
            SimpleSpanProcessor(OTLPSpanExporter(endpoint=receiver.endpoint))
        )
        providers.append(provider)
        return provider.get_tracer("tests")

    providers: list[TracerProvider] = []
    parent = None
    chain = []
    for name, kind, resource in (
        ("ping", SpanKind.INTERNAL, CLIENT),
        ("GET", SpanKind.CLIENT, CLIENT),
        ("GET /ping", SpanKind.SERVER, WEB),
        ("send work", SpanKind.PRODUCER, WEB),
        ("process work", SpanKind.CONSUMER, WORKER),
    ):
        context = set_span_in_context(parent) if parent else None
        is_run = parent is not None and kind is SpanKind.CONSUMER
        links = [SdkLink(parent.get_span_context())] if is_run and parent else []
        parent = tracer(resource).start_span(name, context, kind, links=links)
        chain.append(parent)
    for started in reversed(chain):
        started.end()
    spans = receiver.wait_for(lambda spans: len(spans) == 5)
    for provider in providers:
        provider.shutdown()
    verdict = judge(spans)
    assert verdict.reasons == ()
    assert (verdict.spans, verdict.processes) == (5, 3)
    assert list(by_trace(spans)) == [verdict.trace_id]
