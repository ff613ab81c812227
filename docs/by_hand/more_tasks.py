"""Tasks that break tracing by hand: ``celery -A more_tasks worker``."""

import os
import signal

from celery import chord
from worker import app


@app.task(bind=True, name="retry")
def retry(self):
    if self.request.retries == 0:
        raise self.retry(exc=ConnectionError("the shop is closed"), countdown=0.5)


@app.task(name="killed")
def killed():
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="chord")
def two_parts():
    chord([part.si(), part.si()])(whole.si())


@app.task(name="part")
def part():
    pass


@app.task(name="whole")
def whole():
    pass
