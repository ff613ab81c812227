"""Ask the main process of each worker to describe itself, by remote control."""

import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from celery import Celery

from ..celery import probe
from ..selfcheck import Process
from ..tracing.scope import hop_scope
from .bounded import within
from .broker import TIMEOUT
from .finding import Finding
from .spool_directory import check_directory
from .web_process import check_process

#: Seconds to wait for answers: a short try, and a longer one if no worker has answered.
_PATIENCE = (1.0, 2.0)

#: Seconds that a question may take beyond that, if the broker answers.
_SLACK = 2 * TIMEOUT

#: The difference of clocks, in seconds, that is not reported.
SKEW = 0.25

#: The time of an answer limits the precision of a clock. A worker whose answer took more than
#: _QUICK seconds is asked again, up to _TRIES times.
_QUICK, _TRIES = 0.1, 3

_POOLS = {"prefork": "prefork", "solo": "solo", "thread": "threads", "gevent": "gevent"}

SET_UP = "call instrument_celery(app) at import, for the main process and its children"

#: The answer of each worker, by its name, with the Unix times ``asked`` and ``received``.
Workers = Mapping[str, dict[str, Any]]


def ask(app: Celery) -> Workers:
    """Ask the workers of *app* to describe themselves. Return the quickest answer of each."""
    if not app.conf.worker_enable_remote_control:
        return {}
    workers: dict[str, dict[str, Any]] = {}

    def broadcast(timeout: float, name: str | None = None) -> None:
        asked = time.time()

        def on_answer(reply: Mapping[str, Any]) -> None:
            received = time.time()
            for name, answer in reply.items():
                known = workers.get(name)
                if known is not None and _pid(known) != _pid(answer):  # two have one name
                    name = f"{name} (process {_pid(answer)})"
                    known = workers.get(name)
                if isinstance(answer, dict) and (
                    known is None or received - asked < known["received"] - known["asked"]
                ):
                    workers[name] = {**answer, "asked": asked, "received": received}

        destination = [name] if name is not None else None
        question = partial(
            app.control.broadcast,
            probe.COMMAND,
            destination=destination,
            reply=True,
            timeout=timeout,
            callback=on_answer,
        )
        within(timeout + _SLACK, question)

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


def _pid(answer: Any) -> int:
    """Return the process id of a worker's main process; 0 if it did not describe itself."""
    return int(answer.get("process", {}).get("pid", 0)) if isinstance(answer, dict) else 0


def check_worker(name: str, answer: dict[str, Any]) -> Iterator[Finding]:
    """Check the *answer* of the main process of the worker *name*."""
    yield from _check_clock(name, answer)
    if "process" not in answer or not answer["probed"]:
        yield Finding(
            "worker-not-instrumented", "worker",
            f"{name} runs without instrument_celery(): its tasks have no spans",
            "call instrument_celery(app) in the module that the worker's -A names, and restart it",
        )  # fmt: skip
        return
    if not answer["pool"].startswith(tuple(f"celery.concurrency.{pool}." for pool in _POOLS)):
        yield Finding(
            "pool-not-covered", "worker",
            f"{name} runs the pool {answer['pool']}, which is not supported",
            f"start it with --pool {', '.join(_POOLS.values())}",
        )  # fmt: skip
    process = Process.of(answer["process"])
    yield from check_process(process, "worker", SET_UP)
    if unwritable := check_directory(process, "worker"):
        yield unwritable
    here, there = hop_scope().version, answer["version"]
    if here != there:
        yield Finding(
            "version-differs", "worker",
            f"{name} runs queuehop {there}, and this process {here}",
            "restart the worker after an upgrade", hint=True,
        )  # fmt: skip
    if limits := answer["rate_limits"]:
        limited = ", ".join(f"{task} ({limit})" for task, limit in sorted(limits.items())[:5])
        yield Finding(
            "rate-limit", "worker", f"{name} limits the rate of {limited}: their messages wait",
            "raise rate_limit if they wait too long", hint=True,
        )  # fmt: skip


def _check_clock(name: str, answer: dict[str, Any]) -> Iterator[Finding]:
    asked, received = answer["asked"], answer["received"]
    worker_time = answer.get("time", received)
    ahead = worker_time - received if worker_time > received else min(0.0, worker_time - asked)
    if abs(ahead) > SKEW:
        yield Finding(
            "clocks-apart", "worker",
            f"the clock of {name} is {ahead:+.1f} s from this one: waits and the order of spans "
            "are wrong",
            "synchronize the clocks of both hosts, for example by NTP",
        )  # fmt: skip
