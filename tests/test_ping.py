"""The whole way of a ping: client, web, broker, prefork worker, stores. One trace."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from telemetry.viewer.receiver import Receiver
from telemetry.viewer.spans import Span

from .conftest import Broker
from .processes import Starter
from .system import start_web, start_worker

#: The hops, as service, name and kind; each is the parent of the next.
HOPS = [
    ("queuehop-client", "ping", "INTERNAL"),
    ("queuehop-client", "GET", "CLIENT"),
    ("queuehop-web", "GET /ping", "SERVER"),
    ("queuehop-web", "send workers.tasks.ping", "PRODUCER"),
    ("queuehop-worker", "process workers.tasks.ping", "CONSUMER"),
]


@pytest.fixture(params=["redis", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    if request.param == "rabbitmq":
        url: str = request.getfixturevalue("rabbitmq").url
        return url
    broker: Broker = request.getfixturevalue("broker")
    return broker.url


def hops(spans: list[Span]) -> list[Span]:
    """Return the spans of the hops, as many as are there."""
    found = {(span.service, span.name, span.kind): span for span in spans}
    return [found[hop] for hop in HOPS if hop in found]


def test_a_ping_is_one_trace(
    broker_url: str, broker: Broker, start: Starter, receiver: Receiver
) -> None:
    env = {"CELERY_BROKER_URL": broker_url, "REDIS_URL": broker.url}
    start_worker(start, **env)
    _, url = start_web(start, **env)
    client = start(
        *("app.client", "--url", f"{url}/ping", "--count", "2", "--interval", "0"),
        *("--wait", "10", "--length", "7"),
    )
    assert client.wait() == 0

    pings = [line.rpartition("trace ")[2] for line in client.lines]
    assert len(set(pings)) == 2
    for trace_id in pings:

        def trace(spans: list[Span], trace_id: str = trace_id) -> list[Span]:
            return [span for span in spans if span.trace_id == trace_id]

        # The stores' spans end before the run's, in the same process.
        spans = trace(receiver.wait_for(lambda spans: len(hops(trace(spans))) == len(HOPS), 20))
        way = hops(spans)
        assert [span.parent_id for span in way] == ["", *(span.span_id for span in way[:-1])]
        assert len({span.instance for span in way}) == 3
        stores = [span for span in spans if span not in way]
        assert {span.parent_id for span in stores} == {way[-1].span_id}
        assert {span.kind for span in stores} == {"CLIENT"}
        names = [span.name for span in stores if span.name != "CREATE TABLE pings"]
        assert names == ["SET", "GET", "INSERT pings"]
        assert {span.status for span in spans} == {"UNSET"}


def test_every_request_gets_its_own_result(broker_url: str, start: Starter) -> None:
    start_worker(start, CELERY_BROKER_URL=broker_url)
    _, url = start_web(start, CELERY_BROKER_URL=broker_url)

    def ping(length: int) -> int:
        answer = requests.get(f"{url}/ping", params={"wait": 20, "length": length}, timeout=30)
        assert answer.status_code == 200, answer.text
        return len(answer.json()["result"]["string"])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ping, range(1, 81))) == list(range(1, 81))


def test_a_result_can_be_asked_for_later_and_again(broker_url: str, start: Starter) -> None:
    start_worker(start, CELERY_BROKER_URL=broker_url)
    _, url = start_web(start, CELERY_BROKER_URL=broker_url)
    first = requests.get(f"{url}/ping?length=3", timeout=10).json()
    # A later ping's result comes after this one's, and is read together with it.
    requests.get(f"{url}/ping?task=retry&wait=20", timeout=30)
    for _ in range(2):
        later = requests.get(first["status_url"], timeout=10).json()
        assert later["state"] == "SUCCESS"
        assert len(later["result"]["string"]) == 3
