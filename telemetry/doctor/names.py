"""Check that web, worker and beat have different service names."""

import os
from collections.abc import Iterator

from celery import Celery
from opentelemetry.sdk.environment_variables import OTEL_SERVICE_NAME

from ..selfcheck import Process
from .finding import Finding
from .workers import Workers


def check_names(app: Celery, web: Process | None, workers: Workers) -> Iterator[Finding]:
    """Compare the service names of *web*, of the *workers* and of beat."""
    names = {
        Process.of(answer["process"]).service
        for _, answer in sorted(workers.items())
        if "process" in answer
    } - {""}
    if web is not None and web.service in names and not web.default_service:
        yield Finding(
            "service-name-shared", "worker",
            f"web and worker have one service name, {web.service}: backends show them as one "
            "service",
            f"set {OTEL_SERVICE_NAME} to another name in one of the two processes"
            if os.environ.get(OTEL_SERVICE_NAME)
            else "give telemetry.setup() and instrument_celery() different names",
        )  # fmt: skip
    if app.conf.beat_schedule and names:
        yield Finding(
            "service-name-beat", "queue",
            f"without a name of its own, beat has that of the workers: {min(names)}",
            f"set {OTEL_SERVICE_NAME} in the environment of beat", hint=True,
        )  # fmt: skip
