"""Both ends of the queue name the queue, however the message was routed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from kombu import Exchange, Queue, binding
from kombu.transport.native_delayed_delivery import calculate_routing_key

from telemetry.celery import instrument_celery
from telemetry.celery.destination import destination
from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver

from ...conftest import Broker
from ...processes import Starter
from ...rabbitmq import RabbitMQ
from ..tracing.sinks import ListSink
from .conftest import working
from .routed import make_app

DESTINATION = "messaging.destination.name"
ROUTING_KEY = "messaging.rabbitmq.destination.routing_key"

FEEDS, NEWS = Exchange("feeds", type="topic"), Exchange("news", type="direct")


@pytest.fixture
def app(broker: Broker, sink: ListSink) -> Iterator[Celery]:
    app = Celery("routing", broker=broker.url, backend=broker.url, set_as_default=False)

    app.conf.worker_hijack_root_logger = False
    app.conf.task_ignore_result = True
    instrument_celery(app)

    @app.task(name="work", shared=False)
    def work() -> None:
        pass

    yield app
    app.close()


def both_ends(app: Celery, sink: ListSink, **options: Any) -> tuple[ReceivedSpan, ReceivedSpan]:
    """Publish the task with *options*, and return its send and its run."""
    with working(app):
        app.tasks["work"].apply_async(**options)
        send, run = sink.wait_for("send work", "process work")
    assert run.parent_id == send.span_id
    return send, run


QUEUES = (
    Queue("default", Exchange("tasks", type="topic"), routing_key="task.#"),
    Queue("feed_tasks", FEEDS, routing_key="feed.*.import"),
    Queue("news", NEWS, routing_key="today"),
)


@pytest.mark.parametrize(
    ("options", "queue"),
    [
        pytest.param({}, "default", id="topic of the default queue"),
        pytest.param({"queue": "feed_tasks"}, "feed_tasks", id="the key of the queue is a pattern"),
        pytest.param(
            {"queue": "feed_tasks", "routing_key": "feed.a.import"}, "feed_tasks", id="topic"
        ),
        pytest.param(
            {"exchange": "feeds", "routing_key": "feed.b.import"}, "feed_tasks", id="exchange"
        ),
        pytest.param(
            {"exchange": FEEDS, "routing_key": "feed.b.import"}, "feed_tasks", id="an object"
        ),
        pytest.param({"exchange": "news", "routing_key": "today"}, "news", id="direct exchange"),
        pytest.param({"queue": "news"}, "news", id="direct, another routing key"),
        pytest.param({"queue": "news", "priority": 6}, "news", id="priority"),
    ],
)
def test_the_queue_has_its_name(
    app: Celery, sink: ListSink, options: dict[str, Any], queue: str
) -> None:
    app.conf.update(
        task_queues=QUEUES, task_default_queue="default", task_default_exchange="tasks",
        task_default_exchange_type="topic", task_default_routing_key="task.default",
    )  # fmt: skip
    # With Redis a connection routes by the exchanges that were declared on it, not on another.
    with app.producer_or_acquire() as producer:
        for each in QUEUES:
            each(producer.channel).declare()
    send, run = both_ends(app, sink, **options)
    assert (send.attributes[DESTINATION], run.attributes[DESTINATION]) == (queue, queue)
    assert ROUTING_KEY not in send.attributes


def test_protocol_1_has_the_queues_name_too(app: Celery, sink: ListSink) -> None:
    app.conf.update(task_queues=QUEUES, task_protocol=1)
    with app.producer_or_acquire() as producer:
        QUEUES[1](producer.channel).declare()
    send, run = both_ends(app, sink, queue="feed_tasks", routing_key="feed.a.import")
    assert (send.attributes[DESTINATION], run.attributes[DESTINATION]) == ("feed_tasks",) * 2


def test_the_exchange_of_the_plugin_for_delays_is_not_the_destination(app: Celery) -> None:
    later = Exchange("later", type="x-delayed-message", arguments={"x-delayed-type": "direct"})
    app.conf.task_queues = [Queue(name, later, routing_key=f"to-{name}") for name in ("a", "b")]
    assert destination(app, later, "to-b", None) == ("b", None)


@pytest.mark.parametrize(
    ("routing_key", "expected"),
    [
        pytest.param("a.b", ("one", None), id="one queue"),
        pytest.param("a.c", ("tasks", "a.c"), id="two queues of one exchange"),
        pytest.param("d", ("bound", None), id="a queue that has bindings alone"),
        pytest.param("e", (None, "e"), id="two exchanges"),
        pytest.param("f", (None, "f"), id="no queue that is known"),
    ],
)
def test_no_exchange_of_a_countdown_is_the_destination(
    app: Celery, routing_key: str, expected: tuple[str | None, str | None]
) -> None:
    tasks, others = Exchange("tasks", type="topic"), Exchange("others", type="topic")
    app.conf.task_queues = [
        Queue("one", tasks, routing_key="a.*"),
        Queue("two", tasks, routing_key="*.c"),
        Queue("bound", bindings=[binding(others, routing_key="d"), binding(tasks, "d")]),
        Queue("left", tasks, routing_key="e"),
        Queue("right", others, routing_key="e"),
    ]
    delayed = calculate_routing_key(3, routing_key)
    for exchange in (Exchange("celery_delayed_27"), "celery_delayed_delivery"):
        assert destination(app, exchange, delayed, None) == expected


def test_an_exchange_of_others_is_named_with_the_routing_key(app: Celery, sink: ListSink) -> None:
    app.send_task("theirs", exchange=Exchange("orders", type="topic"), routing_key="eu.new")
    (send,) = sink.wait_for("send theirs")
    assert send.attributes[DESTINATION] == "orders"
    assert send.attributes[ROUTING_KEY] == "eu.new"


def test_a_message_that_expired_has_its_queue(app: Celery, sink: ListSink) -> None:
    app.conf.task_queues = QUEUES
    with working(app):
        past = datetime.now(UTC) - timedelta(days=1)
        app.tasks["work"].apply_async(exchange="news", routing_key="today", expires=past)
        (run,) = sink.wait_for("process work")
    assert run.attributes["celery.task.state"] == "EXPIRED"
    assert run.attributes[DESTINATION] == "news"


def test_on_rabbitmq(
    rabbitmq: RabbitMQ, start: Starter, receiver: Receiver, reporting: None
) -> None:
    """Countdowns, a broadcast, and exchanges with two queues and with one."""
    worker = start(
        *("celery", "-A", "tests.telemetry.celery.routed", "worker", "-P", "solo", "-l", "INFO"),
        *("--without-mingle", "--without-gossip"),
        CELERY_BROKER_URL=rabbitmq.url,
    )
    worker.wait_for_line(" ready.", timeout=60)
    work = make_app(rabbitmq.url).tasks["work"]
    sent = [
        ("delayed", work.apply_async(countdown=1).id),
        ("to_everybody", work.apply_async(queue="to_everybody").id),
        ("to-all", work.apply_async(exchange="to-all", routing_key="any").id),
        ("to-all", work.apply_async(queue="one", countdown=1).id),
        ("by_headers", work.apply_async(queue="by_headers", headers={"kind": "new"}).id),
    ]
    # Each of the two queues has a copy of its message.
    spans = receiver.wait_for(lambda spans: len(spans) >= 12)
    for name, task_id in sent:
        found = [span for span in spans if span.attributes["messaging.message.id"] == task_id]
        assert {span.kind for span in found} == {"PRODUCER", "CONSUMER"}
        assert {span.attributes[DESTINATION] for span in found} == {name}
