"""Headers of the caller, of another tracer, and of a message are treated differently."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, Task, chord, signals
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.context import Context

from telemetry.celery import instrument_celery
from telemetry.otlp.decode import ReceivedSpan
from telemetry.propagation.baggage import merge_baggage

from ...conftest import Broker
from ..tracing.sinks import ListSink
from .conftest import working

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def app(broker: Broker, sink: ListSink) -> Iterator[Celery]:
    app = Celery("headers", broker=broker.url, backend=broker.url, set_as_default=False)
    app.conf.worker_hijack_root_logger = False
    instrument_celery(app)

    @app.task(name="child", shared=False, bind=True)
    def child(task: Task) -> dict[str, Any]:
        return dict(task.request.headers or {})

    @app.task(name="read", shared=False)
    def read() -> dict[str, object]:
        return dict(baggage.get_all())

    yield app
    app.close()


@pytest.fixture
def tenant() -> Iterator[None]:
    token = context.attach(baggage.set_baggage("tenant", "blue"))
    yield
    context.detach(token)


def is_under(child: ReceivedSpan, parent: ReceivedSpan) -> bool:
    return (child.trace_id, child.parent_id) == (parent.trace_id, parent.span_id)


@pytest.mark.usefixtures("tenant")
@pytest.mark.parametrize("theirs", ["sentry-sampled=true", b"sentry-sampled=true"])
def test_baggage_of_another_tracer_is_merged(app: Celery, theirs: Any) -> None:
    with working(app):
        headers = {"baggage": theirs, "sentry-trace": "1"}
        result = app.tasks["read"].apply_async(headers=headers).get(timeout=60)
    assert result == {"tenant": "blue", "sentry-sampled": "true"}
    assert headers == {"baggage": theirs, "sentry-trace": "1"}, "the caller's dict is not changed"


def test_of_one_key_the_value_that_is_there_wins() -> None:
    assert merge_baggage("a=1;p=2 , b=2", "a=3,c=4") == "a=1;p=2,b=2,c=4"


def test_what_is_merged_stays_within_the_limits() -> None:
    ours = ",".join(f"ours{number}=1" for number in range(64))
    assert len(merge_baggage("theirs=1", ours).split(",")) == 64


@pytest.mark.parametrize(
    "handed_on",
    [
        pytest.param(lambda headers: headers, id="the headers"),
        pytest.param(lambda headers: {**headers, "more": "1"}, id="a copy of them"),
        pytest.param(lambda headers: {"traceparent": headers["traceparent"]}, id="the traceparent"),
    ],
)
def test_a_task_that_hands_on_its_headers_starts_a_child(
    app: Celery, sink: ListSink, handed_on: Any
) -> None:
    @app.task(name="parent", shared=False, bind=True)
    def parent(task: Task) -> None:
        app.tasks["child"].apply_async(headers=handed_on(task.request.headers))

    with working(app):
        parent.apply_async(headers={"tenant": "blue"})
        run, send, child = sink.wait_for("process parent", "send child", "process child")
    assert is_under(send, run)
    assert send.kind == "PRODUCER"
    assert is_under(child, send)
    assert len(child.links) == 1, "to its send"


def test_a_context_that_the_caller_chose_is_left(app: Celery, sink: ListSink) -> None:
    with working(app):
        app.tasks["child"].apply_async(headers={"traceparent": TRACEPARENT})
        send, run = sink.wait_for("send child", "process child")
    assert (run.trace_id, run.parent_id) == tuple(TRACEPARENT.split("-")[1:3])
    assert send.kind == "CLIENT"
    assert [link.span_id for link in send.links] == [run.parent_id]


@pytest.mark.parametrize("given", [None, "", 17, "00-0-0-01"])
def test_a_header_that_names_no_span_is_no_choice(app: Celery, sink: ListSink, given: Any) -> None:
    """``headers={"traceparent": request.headers.get("traceparent")}``, without such a header."""
    headers = {"traceparent": given, "tracestate": "old=1", "tenant": "blue"}
    with working(app):
        child = app.tasks["child"].apply_async(headers=headers)
        got = child.get(timeout=60)
        send, run = sink.wait_for("send child", "process child")
    assert send.kind == "PRODUCER"
    assert is_under(run, send)
    assert got == {"tenant": "blue", "traceparent": got["traceparent"]} | {
        name: value for name, value in got.items() if name.startswith("queuehop-")
    }
    assert headers == {"traceparent": given, "tracestate": "old=1", "tenant": "blue"}


class InjectsByHand(Task):
    """A base class of tasks that injects by hand, as many projects have one."""

    def apply_async(self, *args: Any, **options: Any) -> Any:
        headers = dict(options.get("headers") or {})
        propagate.inject(headers)
        return super().apply_async(*args, **{**options, "headers": headers})


def test_a_retry_by_a_class_that_injects_by_hand_is_a_sibling(app: Celery, sink: ListSink) -> None:
    @app.task(name="twice", shared=False, bind=True, max_retries=1, base=InjectsByHand)
    def twice(task: Task) -> None:
        if not task.request.retries:
            raise task.retry(countdown=0)

    with working(app), trace.get_tracer("tests").start_as_current_span("request"):
        twice.delay().get(timeout=60)
    spans = sink.received()
    (request,) = [span for span in spans if span.name == "request"]
    runs = [span for span in spans if span.name == "process twice"]
    first, second = sorted(runs, key=lambda run: run.attributes.get("celery.task.retries", 0))
    assert is_under(first, request)
    assert is_under(second, request)
    assert [link.span_id for link in second.links] == [request.span_id, first.span_id]


def test_the_body_of_a_chord_whose_headers_a_handler_injects(app: Celery, sink: ListSink) -> None:
    def inject(headers: dict[str, Any], **_: Any) -> None:
        propagate.inject(headers)

    signals.before_task_publish.connect(inject)
    signals.before_task_publish.receivers.insert(0, signals.before_task_publish.receivers.pop())
    with working(app):
        chord([app.signature("child")] * 2, app.signature("child", args=[], immutable=True))()
        sink.wait_for_count("process child", 3)
    signals.before_task_publish.disconnect(inject)
    runs = [span for span in sink.received() if span.name == "process child"]
    (body,) = [run for run in runs if len(run.links) > 1]
    parts = {run.span_id for run in runs if run is not body}
    assert parts < {link.span_id for link in body.links}


DATADOGS = {"headers": {"traceparent": TRACEPARENT, "x-datadog-parent-id": "1"}}
SENTRYS = {"sentry-trace": "1", "baggage": "sentry-sampled=true"}


@pytest.mark.usefixtures("tenant")
@pytest.mark.parametrize("headers", [DATADOGS, {**SENTRYS, "headers": SENTRYS}])
def test_a_table_of_another_tracer_does_not_redirect_a_retry(
    app: Celery, sink: ListSink, headers: dict[str, Any]
) -> None:
    @app.task(name="twice", shared=False, bind=True, max_retries=1)
    def twice(task: Task) -> object:
        if not task.request.retries:
            raise task.retry(countdown=0)
        return baggage.get_baggage("tenant")

    with working(app):
        assert twice.apply_async(headers=headers).get(timeout=60) == "blue"
    spans = sink.received()
    runs = [span for span in spans if span.name == "process twice"]
    first, second = sorted(runs, key=lambda run: run.attributes.get("celery.task.retries", 0))
    sends = [span for span in spans if span.name == "send twice"]
    again, send = sorted(sends, key=lambda send: send.kind)
    assert (again.kind, send.kind) == ("CLIENT", "PRODUCER")
    assert is_under(first, send)
    assert is_under(second, send), "a sibling"
    assert is_under(again, first)
    assert (second.links[-1].trace_id, second.links[-1].span_id) == (first.trace_id, first.span_id)


class TestSendTask:
    """Other libraries may replace ``send_task`` of the class or of the app at any time."""

    def test_of_the_class_later(
        self, app: Celery, sink: ListSink, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        send_task, called = Celery.send_task, []

        def theirs(self: Celery, *args: Any, **options: Any) -> Any:
            called.append(options)
            return send_task(self, *args, **options)

        monkeypatch.setattr(Celery, "send_task", theirs)
        self.sends_once(app, sink)
        assert called

    def test_of_the_app_later(self, app: Celery, sink: ListSink) -> None:
        send_task = app.send_task
        app.send_task = lambda *args, **options: send_task(*args, **options)
        self.sends_once(app, sink)

    def test_of_the_app_later_and_past_what_it_had(self, app: Celery, sink: ListSink) -> None:
        app.send_task = lambda *args, **options: Celery.send_task(app, *args, **options)
        self.sends_once(app, sink)

    def test_in_a_subclass(self, broker: Broker, sink: ListSink) -> None:
        class Own(Celery):
            def send_task(self, *args: Any, **options: Any) -> Any:
                return super().send_task(*args, **options)

        app = instrument_celery(Own("own", broker=broker.url, set_as_default=False))
        self.sends_once(app, sink)
        app.close()

    def test_twice_instrumented(self, app: Celery, sink: ListSink) -> None:
        instrument_celery(app)
        self.sends_once(app, sink)

    def test_an_app_that_is_not_instrumented(self, app: Celery, broker: Broker) -> None:
        other = Celery("other", broker=broker.url, backend=broker.url, set_as_default=False)
        headers: list[Any] = []
        other.amqp.send_task_message = lambda *args, **options: headers.append(args[2].headers)
        other.send_task("read")
        assert "traceparent" not in headers[0]

    @staticmethod
    def sends_once(app: Celery, sink: ListSink) -> None:
        app.send_task("any", ignore_result=True)
        (send,) = sink.received()
        assert (send.name, send.kind) == ("send any", "PRODUCER")


def test_a_retry_outside_the_context_of_its_run_is_a_linked_sibling(
    app: Celery, sink: ListSink
) -> None:
    @app.task(name="twice", shared=False, bind=True, max_retries=1)
    def twice(task: Task) -> None:
        if not task.request.retries:
            token = context.attach(Context())
            try:
                raise task.retry(countdown=0)
            finally:
                context.detach(token)

    with working(app):
        twice.delay().get(timeout=60)
    first, second = sorted(
        (span for span in sink.received() if span.name == "process twice"),
        key=lambda run: run.attributes.get("celery.task.retries", 0),
    )
    assert (second.trace_id, second.parent_id) == (first.trace_id, first.parent_id)
    assert first.span_id in [link.span_id for link in second.links]
