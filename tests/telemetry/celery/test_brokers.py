"""Each end of the queue names the broker that it uses."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, group
from kombu import Connection, Producer

from telemetry.celery import instrument_celery
from telemetry.celery.message import broker_of

from ...conftest import Broker
from ..tracing.sinks import ListSink

DATABASE = "celery.broker.virtual_host"


def attributes(url: str) -> dict[str, Any]:
    """Return the attributes of the broker of an app with the broker *url*."""
    return broker_of(Celery("away", broker=url).connection_for_write).attributes()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis+socket://:s3cret@/tmp/no.sock", "/tmp/no.sock"),
        ("redis+socket:///tmp/no.sock?password=s3cret", "/tmp/no.sock"),
        ("mongodb://user:s3cret@here:1,there:2/db", "here"),
        ("sqla+postgresql://user:s3cret@here/db", "here"),
        ("redis://:s3cret@here:1/0", "here"),
    ],
)
def test_no_password_of_a_broker_is_in_a_span(url: str, address: str) -> None:
    found = attributes(url)
    assert found["server.address"] == address
    assert found.get("server.port") == (1 if ":1" in url else None)
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("redis://here/3", "3"),
        ("redis://here/0", None),
        ("redis://here", None),
        ("amqp://user:s3cret@here/shop", "shop"),
        ("amqp://here//", None),
    ],
)
def test_a_database_that_is_not_the_default_is_named(url: str, part: str | None) -> None:
    assert attributes(url).get(DATABASE) == part


@pytest.mark.parametrize(
    ("url", "common"),
    [
        ("amqp://a/shop;amqp://b/shop", {DATABASE: "shop"}),
        ("amqp://a/shop;amqp://a/news", {"server.address": "a", "server.port": 5672}),
        ("amqp://a:1;amqp://a:2", {"server.address": "a"}),
        ("amqp://a;amqp://a", {"server.address": "a", "server.port": 5672}),
    ],
)
def test_brokers_to_fail_over_to_are_described_by_what_they_have_in_common(
    url: str, common: dict[str, Any]
) -> None:
    assert attributes(url) == {"messaging.system": "rabbitmq", **common}


@pytest.fixture
def app(broker: Broker, sink: ListSink) -> Iterator[Celery]:
    """An app whose broker is database 0."""
    app = Celery("brokers", broker=broker.url, set_as_default=False)
    app.conf.task_ignore_result = True
    instrument_celery(app)

    @app.task(name="work", shared=False)
    def work() -> None:
        pass

    yield app
    app.close()


@pytest.fixture
def other(broker: Broker) -> Iterator[Connection]:
    """A connection to another broker: database 1."""
    with Connection(broker.url.replace("/0", "/1")) as connection:
        yield connection


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(lambda other: {"connection": other}, id="connection"),
        pytest.param(lambda other: {"producer": Producer(other)}, id="producer"),
        pytest.param(lambda other: {"producer": Producer(other.channel())}, id="of a channel"),
        pytest.param(lambda other: {"publisher": Producer(other)}, id="the old name of it"),
    ],
)
def test_a_send_by_a_connection_of_the_caller_names_its_broker(
    app: Celery, sink: ListSink, other: Connection, options: Callable[[Connection], Any]
) -> None:
    work = app.tasks["work"]
    work.apply_async(**options(other))
    work.apply_async()
    there, here = sink.received()
    assert there.attributes[DATABASE] == "1"
    assert DATABASE not in here.attributes


def test_a_group_names_the_broker_that_its_messages_go_to(
    app: Celery, sink: ListSink, other: Connection
) -> None:
    work = app.tasks["work"]
    group(work.si(), work.si()).apply_async(producer=Producer(other))
    group(work.si()).apply_async()
    assert [send.attributes.get(DATABASE) for send in sink.received()] == ["1", "1", None]


def test_a_connection_that_cannot_be_described_is_only_logged(
    app: Celery, sink: ListSink, other: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(Producer):
        asked = 0

        @property
        def connection(self) -> Any:
            self.asked += 1
            if self.asked == 1:
                raise RuntimeError("not yet")
            return super().connection

    app.tasks["work"].apply_async(producer=Odd(other))
    (send,) = sink.received()
    assert "server.address" not in send.attributes
    assert "describe a broker" in caplog.text
