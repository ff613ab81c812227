"""The workers of a Celery app: each one's main process describes itself by remote control."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from celery import Celery

from ..celery import probe
from ..selfcheck import Process
from ..tracing.scope import hop_scope
from .broker import address
from .directory import not_writable
from .finding import Finding
from .web_process import check_process

__all__ = ["SET_UP", "Workers", "ask", "check_worker", "nobody"]

#: Seconds to wait for the first answer, and from each answer to the next: a short try and a long.
_PATIENCE = (1.0, 2.0)

#: Seconds by which clocks may differ.
SKEW = 0.25

#: A clock is compared within the seconds that an answer took. One that took longer is asked again,
#: so often at most.
_QUICK, _TRIES = 0.1, 3

_POOLS = {"prefork": "prefork", "solo": "solo", "thread": "threads", "gevent": "gevent"}

SET_UP = "call instrument_celery(app) at import: it sets up the main process and its children"

#: What each worker has answered, by its name, with ``asked`` and ``received`` as Unix times.
Workers = Mapping[str, dict[str, Any]]


def ask(app: Celery) -> Workers:
    """Ask the workers of *app* to describe themselves. The quickest answer of each one counts."""
    if not app.conf.worker_enable_remote_control:
        return {}
    workers: dict[str, dict[str, Any]] = {}

    def broadcast(timeout: float, name: str | None = None) -> None:
        asked = time.time()

        def on_answer(reply: Mapping[str, Any]) -> None:
            received = time.time()
            for name, answer in reply.items():
                known = workers.get(name)
                if isinstance(answer, dict) and (
                    known is None or received - asked < known["received"] - known["asked"]
                ):
                    workers[name] = {**answer, "asked": asked, "received": received}

        destination = [name] if name is not None else None
        app.control.broadcast(
            probe.COMMAND, destination=destination, reply=True, timeout=timeout, callback=on_answer
        )

    for patience in _PATIENCE:
        broadcast(patience)
        if workers:
            break
    for name in list(workers):
        for _ in range(_TRIES):
            if workers[name]["received"] - workers[name]["asked"] <= _QUICK:
                break
            broadcast(_PATIENCE[0], name)
    return workers


def nobody(app: Celery) -> Finding:
    """Explain why no worker answers: perhaps the serializer, so ask in JSON."""
    with app.connection_for_write() as connection:
        uri = address(connection)
        serializer = app.conf.task_serializer
        if serializer != "json":
            mailbox = app.control.mailbox(connection)
            mailbox.accept = ["json", serializer]
            if mailbox._broadcast(
                probe.COMMAND, reply=True, timeout=_PATIENCE[0], serializer="json"
            ):
                return Finding(
                    "serializer-refused", "worker", f"the workers refuse messages in {serializer}",
                    f"let accept_content name {serializer}, or set task_serializer to another",
                )  # fmt: skip
    prefix = app.conf.broker_transport_options.get("global_keyprefix")
    here = f" with global_keyprefix {prefix!r}" if prefix else ""
    return Finding(
        "no-worker", "worker", f"no worker on {uri}{here} answered",
        "start one; if one runs, it has another broker_url, virtual host, database or "
        "global_keyprefix in broker_transport_options, or it is busy or stopped",
    )  # fmt: skip


def check_worker(name: str, answer: dict[str, Any]) -> Iterator[Finding]:
    """Check what the main process of the worker *name* has answered."""
    yield from _check_clock(name, answer)
    if "process" not in answer or not answer["probed"]:
        yield Finding(
            "worker-not-instrumented", "worker",
            f"{name} runs without instrument_celery: it does not know the doctor's probe",
            "call instrument_celery(app) in the module that the worker's -A names; restart it",
        )  # fmt: skip
        return
    if not answer["pool"].startswith(tuple(f"celery.concurrency.{pool}." for pool in _POOLS)):
        yield Finding(
            "pool-not-covered", "worker", f"{name} runs the pool {answer['pool']}",
            f"use one of --pool {', '.join(_POOLS.values())}",
        )  # fmt: skip
    process = Process.of(answer["process"])
    for finding in check_process(process, "worker", SET_UP):
        if finding.code != "no-provider":  # the probe says which processes lack it
            yield finding
    if process.unwritable:
        yield not_writable("worker", process.unwritable)
    here, there = hop_scope().version, answer.get("version", "")
    if here != there:
        yield Finding(
            "version-differs", "worker",
            f"{name} runs queuehop {there or 'of an older release'}, this process {here}",
            "restart the worker after an upgrade", hint=True,
        )  # fmt: skip
    if limits := answer.get("rate_limits"):
        limited = ", ".join(f"{task} ({limit})" for task, limit in sorted(limits.items())[:5])
        yield Finding(
            "rate-limit", "worker", f"{name} limits the rate of {limited}: messages wait in it",
            "raise rate_limit if they wait for too long", hint=True,
        )  # fmt: skip


def _check_clock(name: str, answer: dict[str, Any]) -> Iterator[Finding]:
    asked, received = answer["asked"], answer["received"]
    told = answer.get("time", received)
    ahead = told - received if told > received else min(0.0, told - asked)
    if abs(ahead) > SKEW:
        yield Finding(
            "clocks-apart", "worker", f"the clock of {name} is {ahead:+.1f} s from this one",
            "synchronize the clocks of both hosts by NTP: waits and the order of spans are wrong",
        )  # fmt: skip
