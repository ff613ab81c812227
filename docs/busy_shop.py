"""A shop in trouble, for the pictures: a backlog, retries, a chord and a killed child process.

``celery -A busy_shop worker -Q …`` is a worker of it; ``python busy_shop.py SECONDS`` takes orders.
"""

import os
import random
import signal
import sys
import time
from typing import Any

from celery import Celery, Task, chord
from flask import Flask, jsonify

import telemetry
from telemetry.celery import instrument_celery
from telemetry.flask import instrument_flask

app = Celery(
    "busy_shop", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_BROKER_URL"]
)
app.conf.update(
    task_default_queue="orders",
    task_routes={
        "payments.*": {"queue": "payments"},
        "mail.*": {"queue": "mail"},
        "reports.*": {"queue": "reports"},
        "images.*": {"queue": "images"},
    },
)
instrument_celery(app)


class CardDeclined(Exception):
    """The bank says no."""


@app.task(name="orders.place")
def place(number: int) -> None:
    work(20)
    charge.delay(number)
    if number % 3 == 0:
        send_receipt.delay(number)
    if number % 4 == 0:
        resize.delay(number)


@app.task(name="payments.charge", bind=True, max_retries=3)
def charge(self: Task, number: int) -> None:
    work(60)
    if number % 7 == 0 and self.request.retries < 2:
        reason = ConnectionError("payments.example did not answer")
        raise self.retry(exc=reason, countdown=0.5 * 2**self.request.retries)
    if number % 11 == 0:
        raise CardDeclined("insufficient funds")


@app.task(name="mail.send_receipt")
def send_receipt(number: int) -> None:
    work(30)


@app.task(name="images.resize")
def resize(number: int) -> None:
    work(90)
    if number % 40 == 0:
        # The kernel does this to a process that uses too much memory.
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="reports.count_orders")
def count_orders(shop: int) -> int:
    work(80)
    return shop


@app.task(name="reports.total")
def total(counts: list[int]) -> int:
    work(25)
    return sum(counts)


def work(milliseconds: float) -> None:
    """Sleep for about this time."""
    time.sleep(milliseconds / 1000 * random.lognormvariate(0, 0.4))


def web() -> Flask:
    """Return the web side of the shop."""
    flask = Flask("shop")
    instrument_flask(flask)

    @flask.post("/orders/<int:number>")
    def order(number: int) -> Any:
        place.delay(number)
        return jsonify(order=number), 202

    @flask.post("/reports")
    def report() -> Any:
        chord(count_orders.s(shop) for shop in range(4))(total.s())
        return jsonify(), 202

    return flask


def main(seconds: float) -> None:
    telemetry.setup("shop")
    client = web().test_client()
    until = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until:
        number += 1
        client.post(f"/orders/{number}")
        if number % 25 == 0:
            client.post("/reports")
        time.sleep(random.expovariate(4))
    telemetry.shutdown()


if __name__ == "__main__":
    main(float(sys.argv[1]))
