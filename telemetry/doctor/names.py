"""The names of services: each of web, worker and beat has its own."""

import os
from collections.abc import Iterator

from celery import Celery
from opentelemetry.sdk.environment_variables import OTEL_SERVICE_NAME

from ..selfcheck import Process
from .finding import Finding
from .workers import Workers

__all__ = ["check_names"]


def check_names(app: Celery, web: Process | None, workers: Workers) -> Iterator[Finding]:
    """Compare the names of *web*, of the *workers* and of beat."""
    names = {
        Process.of(answer["process"]).service
        for _, answer in sorted(workers.items())
        if "process" in answer
    } - {""}
    if web is not None and web.service in names and not web.default_service:
        yield Finding(
            "service-name-shared", "worker",
            f"web and worker are both the service {web.service}: the trace shows one service",
            f"set {OTEL_SERVICE_NAME} for each of the two processes, not for both"
            if os.environ.get(OTEL_SERVICE_NAME)
            else "give telemetry.setup() and instrument_celery() different names",
        )  # fmt: skip
    if app.conf.beat_schedule and names:
        yield Finding(
            "service-name-beat", "queue",
            f"beat has the name that instrument_celery() gives to workers too: {min(names)}",
            f"set {OTEL_SERVICE_NAME} in the environment of beat to tell the two apart", hint=True,
        )  # fmt: skip
