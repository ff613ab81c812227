"""Log records of tasks are in the traces of their runs, also those of a killed child."""

from telemetry.otlp.decode import ReceivedLog

from .conftest import Queue, short

LOGS = {"OTEL_LOGS_EXPORTER": "otlp"}


def of(logs: list[ReceivedLog], text: str) -> ReceivedLog:
    return next(log for log in logs if log.text == text)


def test_lines_are_at_the_run_that_logs_them(queue: Queue) -> None:
    worker = queue.worker("prefork", 2, **LOGS)
    queue.send("talk", "hello")
    queue.send("fail")
    send, run, _, failed = queue.spans("send talk", "process talk", "send fail", "process fail")
    wanted = {"hello by the task's logger", "hello by another", "hello printed"}
    logs = queue.receiver.wait_for_logs(
        lambda logs: (
            wanted <= {log.text for log in logs} and any("raised" in log.text for log in logs)
        )
    )
    for text in wanted:
        log = of(logs, text)
        assert (log.trace_id, log.span_id) == (run.trace_id, run.span_id)
        assert log.service == "worker"
    # The logger of tasks does not propagate, and Celery has removed the root logger's handlers.
    assert of(logs, "hello by the task's logger").scope == f"{TASKS}.talk"
    assert "task_id" not in of(logs, "hello by another").attributes
    error = next(log for log in logs if "raised" in log.text)
    assert error.span_id == failed.span_id
    assert error.attributes["exception.type"] == failed.attributes["error.type"]
    assert "Traceback" in str(error.attributes["exception.stacktrace"])
    # Spans have the facts of Celery's own lines, so these are printed and not sent.
    assert worker.stop() == 0
    assert "received" in worker.output
    assert "succeeded" in worker.output
    assert not [log for log in queue.receiver.logs if "received" in log.text]
    assert not [log for log in queue.receiver.logs if "succeeded" in log.text]
    assert short(send) == "send talk"


def test_celerys_own_lines_are_sent_where_asked_for(queue: Queue) -> None:
    queue.worker("prefork", 1, **LOGS, QUEUEHOP_LOGS_CELERY="true")
    queue.send("add", 1, 2)
    send, run = queue.spans("send add", "process add")
    logs = queue.receiver.wait_for_logs(
        lambda logs: (
            {"received", "succeeded"} <= {word for log in logs for word in log.text.split()}
        )
    )
    received = next(log for log in logs if log.text.endswith("received"))
    succeeded = next(log for log in logs if "succeeded" in log.text)
    assert (received.trace_id, received.span_id) == (send.trace_id, send.span_id)
    assert (succeeded.trace_id, succeeded.span_id) == (run.trace_id, run.span_id)


def test_the_last_line_of_a_killed_child_is_in_its_trace(queue: Queue) -> None:
    queue.worker("prefork", 1, **LOGS)
    queue.send("last_words")
    send, run = queue.spans("send last_words", "process last_words")
    logs = queue.receiver.wait_for_logs(lambda logs: "I am about to die" in {x.text for x in logs})
    assert of(logs, "I am about to die").trace_id == send.trace_id == run.trace_id


TASKS = "tests.telemetry.celery.project"
