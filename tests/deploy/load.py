"""Publish a number of each task: ``python -m tests.deploy.load add=3 fail=1``."""

import os
import sys

from celery import Celery

import telemetry
from telemetry.celery import instrument_celery

ARGUMENTS = {"add": (1, 2)}

if __name__ == "__main__":
    telemetry.setup("shop")
    with Celery(broker=os.environ["CELERY_BROKER_URL"]) as app:
        app.conf.task_ignore_result = True
        instrument_celery(app)
        for argument in sys.argv[1:]:
            name, _, count = argument.partition("=")
            for _ in range(int(count)):
                app.send_task(f"tests.telemetry.celery.project.{name}", ARGUMENTS.get(name, ()))
    telemetry.shutdown()
