from flask import Flask
from opentelemetry import trace
from worker import app as queue

import telemetry
from telemetry.flask import instrument_flask

telemetry.setup("server")
app = instrument_flask(Flask(__name__))
tracer = trace.get_tracer("server")


@app.get("/<task>")
def send(task):
    queue.send_task(task)
    return "sent\n"
