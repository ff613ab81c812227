"""Faults of the broker, of the queues, and of the path to a worker."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import islice
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext

import pytest
import redis
import trustme
from celery import Celery
from kombu import Connection, Queue

from telemetry.doctor.broker import check_broker

from ...conftest import Broker, free_port
from ...processes import Starter
from ...rabbitmq import RabbitMQ
from ...system import Server
from .conftest import BOTH, PROJECT, QUEUE, Doctor, codes, first, hints


def test_a_broker_that_is_not_there(doctor: Doctor) -> None:
    port = free_port()
    said = first(doctor(*QUEUE, CELERY_BROKER_URL=f"redis://:secret@127.0.0.1:{port}/0"))
    assert said["code"] == "broker-unreachable"
    assert f"redis://:**@127.0.0.1:{port}/0" in said["problem"]
    assert "Connection refused" in said["problem"]


def test_no_broker_url_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    app = Celery(set_as_current=False)
    app.conf.broker_port = port = free_port()
    said = check_broker(app)
    assert said is not None
    assert said.code == "broker-unreachable"
    default = f"broker_url is not set, and Celery's default amqp://guest:**@127.0.0.1:{port}//"
    assert said.problem.startswith(default)


def test_a_broker_whose_name_does_not_resolve(doctor: Doctor) -> None:
    said = first(doctor(*QUEUE, CELERY_BROKER_URL="redis://broker.invalid:6379/0"))
    assert said["code"] == "broker-unreachable"
    assert "broker.invalid" in said["problem"]


def test_a_broker_that_takes_no_such_login(doctor: Doctor, broker: Broker) -> None:
    said = first(doctor(*QUEUE, CELERY_BROKER_URL=broker.url.replace("//", "//nobody:secret@")))
    assert said["code"] == "broker-login"
    assert "secret" not in str(said)


@pytest.mark.parametrize(
    ("old", "new"), [("guest:guest", "guest:secret"), ("//guest", "//nobody"), ("//", "/no-such")]
)
def test_a_rabbitmq_that_takes_no_such_login(
    doctor: Doctor, rabbitmq: RabbitMQ, old: str, new: str
) -> None:
    head, _, tail = rabbitmq.url.rpartition(old)
    said = first(doctor(*QUEUE, CELERY_BROKER_URL=head + new + tail))
    assert said["code"] == "broker-login"
    assert "secret" not in str(said)


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_says_nothing(doctor: Doctor, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as quiet:
        address = f"127.0.0.1:{quiet.getsockname()[1]}"
        said = first(doctor(*QUEUE, CELERY_BROKER_URL=f"{scheme}://{address}//"))
    assert said["code"] == "broker-unreachable"
    assert f"{address}//" in said["problem"]


def test_ctrl_c_ends_it_without_a_word(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as quiet:
        quiet.settimeout(30)
        url = f"redis://127.0.0.1:{quiet.getsockname()[1]}/0"
        doctor = start("telemetry", "doctor", *QUEUE, CELERY_BROKER_URL=url)
        connection, _ = quiet.accept()
        with connection:
            doctor.signal(signal.SIGINT)
            assert doctor.wait() == 130
    assert doctor.output == ""


def test_a_sound_system_on_rabbitmq(doctor: Doctor, worker, rabbitmq: RabbitMQ) -> None:
    worker(CELERY_BROKER_URL=rabbitmq.url)
    assert codes(doctor(CELERY_BROKER_URL=rabbitmq.url)) == []


@pytest.mark.parametrize(
    ("url", "problem", "remedy"),
    [
        ("pigeon://127.0.0.1", "pigeon", "install the transport"),
        ("sentinel://:secret@127.0.0.1:1", "master_name", "name the master"),
        ("redis://:secret#1@127.0.0.1:1/0", "as '…'", "percent-encode"),
        ("redis://127.0.0.1:1/0?password=secret", "not usable", "correct it"),
    ],
)
def test_a_broker_of_no_kind(doctor: Doctor, url: str, problem: str, remedy: str) -> None:
    said = first(doctor(*QUEUE, CELERY_BROKER_URL=url))
    assert said["code"] == "broker-unknown"
    assert problem in said["problem"]
    assert remedy in said["remedy"]
    assert "secret" not in str(said)


def test_the_client_of_the_broker_is_not_installed(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "redis.py").write_text("raise ImportError('No module named redis')")
    said = first(
        doctor(*QUEUE, CELERY_BROKER_URL="redis://127.0.0.1:1/0", PYTHONPATH=str(tmp_path))
    )
    assert said["code"] == "broker-unknown"
    assert "install the transport" in said["remedy"]


def test_a_broker_inside_of_one_process(doctor: Doctor) -> None:
    assert codes(doctor(*QUEUE, CELERY_BROKER_URL="memory://")) == ["broker-in-memory"]


def test_tasks_that_run_where_they_are_called(doctor: Doctor) -> None:
    assert codes(doctor(*QUEUE, BREAK="eager")) == ["tasks-eager"]


@pytest.mark.parametrize("broken", ["no-such-serializer", "compressed-by-none"])
def test_a_message_that_cannot_be_published(doctor: Doctor, broken: str) -> None:
    assert codes(doctor(*QUEUE, BREAK=broken)) == ["not-published"]


def test_no_worker(doctor: Doctor, broker: Broker) -> None:
    said = doctor()
    assert codes(said) == ["no-worker"]
    assert broker.url in first(said)["problem"]


def test_a_worker_at_another_database(doctor: Doctor, worker, broker: Broker) -> None:
    worker(CELERY_BROKER_URL=broker.url.replace("/0", "/1"))
    assert codes(doctor()) == ["no-worker"]


def test_a_serializer_that_the_worker_does_not_take(sound: Doctor) -> None:
    said = first(sound(BREAK="pickle"))
    assert said["code"] == "serializer-refused"
    assert "pickle" in said["problem"]


def test_a_worker_that_accepts_another_serializer(doctor: Doctor, worker) -> None:
    worker(BREAK="accepts-yaml")
    said = doctor(*BOTH, "--timeout", "1")
    assert codes(said) == ["serializer-refused"]
    assert "in yaml and not in json" in first(said)["problem"]


def test_a_redis_that_refuses_to_write(doctor: Doctor, tmp_path: Path) -> None:
    server = Server(tmp_path, "secret")
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", "1")
        full = doctor(*QUEUE, CELERY_BROKER_URL=server.url)
        client.config_set("maxmemory", "0")
        client.replicaof("127.0.0.1", "1")
        replica = doctor(*QUEUE, CELERY_BROKER_URL=server.url)
    server.process.stop()
    for said, remedy in ((full, "raise maxmemory"), (replica, "name the primary")):
        assert codes(said) == ["not-published"]
        assert remedy in first(said)["remedy"]


def test_a_user_of_redis_who_is_limited_to_some_names(
    doctor: Doctor, worker, tmp_path: Path
) -> None:
    server = Server(tmp_path, "secret")
    url = server.url.replace("//:", "//limited:")
    celerys = ["celery*", "_kombu*", "unacked*"]
    with redis.Redis.from_url(server.url) as client:

        def allow(*keys: str) -> None:
            client.acl_setuser(
                "limited", enabled=True, passwords=["+secret"], reset_keys=True, keys=keys,
                channels=["*"], categories=["+@all"],
            )  # fmt: skip

        allow(*celerys, "*.reply.celery.pidbox*")
        process = worker(CELERY_BROKER_URL=url)
        assert codes(doctor(CELERY_BROKER_URL=url)) == []
        allow(*celerys)
        said = doctor(CELERY_BROKER_URL=url)
        allow("*")  # so that the worker can end
    process.stop()
    server.process.stop()
    assert codes(said) == ["probe-not-permitted"]
    assert ".reply.celery.pidbox" in first(said)["remedy"]


def test_a_rabbitmq_that_blocks_publishers(doctor: Doctor, rabbitmq: RabbitMQ) -> None:
    with rabbitmq.out_of_memory():
        said = doctor(*QUEUE, CELERY_BROKER_URL=rabbitmq.url)
    assert codes(said) == ["broker-blocked"]
    assert "rabbitmqctl status" in first(said)["remedy"]


def test_a_queue_with_other_arguments(doctor: Doctor, rabbitmq: RabbitMQ) -> None:
    with Connection(rabbitmq.url) as connection:
        Queue("ordered")(connection.default_channel).queue_declare()
        said = doctor(*QUEUE, CELERY_BROKER_URL=rabbitmq.url, BREAK="other-arguments")
        connection.default_channel.queue_delete("ordered")
    assert codes(said) == ["not-published"]
    assert "declare it alike in task_queues" in first(said)["remedy"]


def test_a_worker_without_remote_control(doctor: Doctor, worker) -> None:
    assert codes(doctor(*BOTH, "--timeout", "1", BREAK="no-remote-control")) == ["no-worker"]
    worker(BREAK="no-remote-control")
    assert codes(doctor(BREAK="no-remote-control")) == []
    # It is switched off in the worker alone.
    said = doctor()
    assert codes(said) == []
    assert hints(said) == ["remote-control-off"]


def test_a_worker_with_another_key_prefix(sound: Doctor) -> None:
    said = sound(BREAK="key-prefix")
    assert codes(said) == ["no-worker"]
    assert "with global_keyprefix 'shop:'" in first(said)["problem"]
    assert "global_keyprefix" in first(said)["remedy"]


@pytest.fixture
def tls_port() -> Iterator[int]:
    """A port that speaks TLS, and nothing else after it."""
    context = SSLContext(PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_with_tls_on_one_side(
    doctor: Doctor, broker: Broker, rabbitmq: RabbitMQ, tls_port: int, scheme: str
) -> None:
    plain = broker.url if scheme == "redis" else rabbitmq.url
    said = doctor(*QUEUE, CELERY_BROKER_URL=plain.replace(scheme, f"{scheme}s", 1))
    assert codes(said) == ["broker-tls"]
    assert f"{scheme}://" in first(said)["remedy"]
    said = doctor(*QUEUE, CELERY_BROKER_URL=f"{scheme}://127.0.0.1:{tls_port}//")
    assert codes(said) == ["broker-plain-to-tls"]
    assert f"{scheme}s://" in first(said)["remedy"]


def test_a_queue_without_worker(doctor: Doctor, worker) -> None:
    worker("-Q", "other")
    assert codes(doctor()) == ["queue-not-consumed"]


def test_a_queue_that_a_task_is_routed_to(doctor: Doctor, worker) -> None:
    """The default queue, to which no task is routed, needs no worker."""
    worker("-Q", "celery", BREAK="routed")
    said = doctor(BREAK="routed")
    assert codes(said) == ["queue-not-consumed"]
    assert "queue slow, and pack is sent to it" in first(said)["problem"]


def test_a_worker_that_has_stopped_taking_messages(doctor: Doctor, worker, start: Starter) -> None:
    process = worker()
    command = ("control", "cancel_consumer", "celery")
    assert start("celery", "-A", f"{PROJECT}:celery", *command).wait() == 0
    process.wait_for_line("Canceling queue celery")
    assert codes(doctor()) == ["queue-not-consumed"]


def test_a_queue_that_is_declared(doctor: Doctor, worker) -> None:
    worker("-Q", "celery", BREAK="declared")
    said = doctor(BREAK="declared")
    assert codes(said) == ["queue-not-consumed"]
    assert "queue idle" in first(said)["problem"]


@pytest.mark.parametrize("sound", ["routed", "broadcast", "own-router", "contrib-publishes"])
def test_a_sound_system_of_another_kind(doctor: Doctor, worker, sound: str) -> None:
    queues = ("-Q", "slow") if sound == "routed" else ()
    worker(*queues, BREAK="" if sound == "contrib-publishes" else sound)
    assert codes(doctor(BREAK=sound)) == []


def test_another_app_was_instrumented(doctor: Doctor) -> None:
    said = first(doctor(*QUEUE, BREAK="another-app"))
    assert said["code"] == "celery-not-instrumented"
    assert "was called with another app" in said["problem"]


def test_a_pool_that_nobody_has_tried(doctor: Doctor, worker) -> None:
    worker("--pool", "custom", CELERY_CUSTOM_WORKER_POOL=f"{PROJECT}:OwnPool")
    said = doctor()
    assert codes(said) == ["pool-not-covered"]
    assert "prefork, solo, threads, gevent" in first(said)["remedy"]


def test_two_workers_with_one_name(doctor: Doctor, worker) -> None:
    """Either may run the probe, and each answers remote control."""
    worker("-n", "one@here")
    worker("-n", "one@here", OTEL_SDK_DISABLED="true")
    assert codes(doctor()) == ["no-provider"]


def test_two_workers_of_which_one_knows_nothing(doctor: Doctor, worker) -> None:
    worker("-n", "one@here")
    worker("-n", "other@here", BREAK="celery-not-instrumented")
    said = doctor()
    assert codes(said) == ["worker-not-instrumented"]
    assert "other@here" in first(said)["problem"]


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_a_worker_that_is_stopped(
    doctor: Doctor, worker, start: Starter, broker: Broker, rabbitmq: RabbitMQ, kind: str
) -> None:
    """It is connected, so it is not missing."""
    url = broker.url if kind == "redis" else rabbitmq.url
    process = worker("--pool", "solo", CELERY_BROKER_URL=url)
    # One that is ready may not have subscribed yet.
    ping = ("celery", "-A", f"{PROJECT}:celery", "inspect", "ping", "-t", "10")
    assert start(*ping, CELERY_BROKER_URL=url).wait() == 0
    process.signal(signal.SIGSTOP)
    try:
        said = doctor(*QUEUE, "--timeout", "3", CELERY_BROKER_URL=url)
    finally:
        process.signal(signal.SIGCONT)
    assert codes(said) == ["worker-silent"]


# The doctor connects to declare the queue of its answers, connects to ask, and waits.
@pytest.mark.parametrize("moment", [("HELLO", 4), ("HELLO", 5), ("PUBLISH", 1)], ids=str)
def test_a_broker_that_ends_meanwhile(
    doctor: Doctor, worker, tmp_path: Path, moment: tuple[str, int]
) -> None:
    server = Server(tmp_path, "secret")
    process = worker("--pool", "solo", CELERY_BROKER_URL=server.url)
    process.signal(signal.SIGSTOP)
    # Starting the doctor may take longer than the client's default timeout.
    client = redis.Redis.from_url(server.url, socket_timeout=None)
    with client, client.monitor() as monitor:
        command, number = moment

        def kill_at_that_moment() -> None:
            of_that_kind = (
                each for each in monitor.listen() if each["command"].startswith(command)
            )
            next(islice(of_that_kind, number - 1, None))
            server.process.kill()

        listener = threading.Thread(target=kill_at_that_moment)
        listener.start()
        said = doctor(*QUEUE, CELERY_BROKER_URL=server.url)
        listener.join()
    process.kill()
    assert codes(said) == ["broker-unreachable"]
    assert "no longer answers" in first(said)["problem"]


def test_a_worker_that_does_not_come_to_the_probe(doctor: Doctor, worker) -> None:
    """The doctor waits once for all of its queues."""
    main = worker("-Q", "celery,slow").pid
    (child,) = map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split())
    os.kill(child, signal.SIGSTOP)
    try:
        said = doctor(*BOTH, "--timeout", "1")
    finally:
        os.kill(child, signal.SIGCONT)
    assert codes(said) == ["probe-unanswered"]
    assert "celery, slow" in first(said)["problem"]
