"""The spans of a ping, made by hand."""

from telemetry.otlp.decode import Link, ReceivedSpan

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
BEGIN = 1_700_000_000_000_000_000
CLIENT = {"service.name": "shop-client", "service.instance.id": "c1"}
WEB = {"service.name": "shop", "service.instance.id": "w1"}
WORKER = {"service.name": "shop-worker", "service.instance.id": "r1"}


def span(
    span_id: str,
    parent_id: str,
    name: str,
    kind: str,
    resource: dict[str, str],
    milliseconds: tuple[float, float],
    **more: object,
) -> ReceivedSpan:
    start, end = (BEGIN + int(value * 1e6) for value in milliseconds)
    facts: dict[str, object] = {
        **{"status": "UNSET", "status_message": "", "attributes": {}, "events": (), "links": ()},
        **{"trace_state": "", "flags": 1, "scope": "tests", **more},
    }
    ids = (TRACE, span_id, parent_id, name, kind, start, end)
    return ReceivedSpan(*ids, resource=resource, **facts)  # type: ignore[arg-type]


def whole_ping() -> dict[str, ReceivedSpan]:
    """Return the spans of one whole ping of 40 ms, by the names in the tests."""
    status = {"http.response.status_code": 200}
    queue = {"messaging.destination.name": "celery"}
    waits = {"celery.wait.scheduled": 0.0, "celery.wait.queue": 0.003, "celery.wait.prefetch": 0.0}
    task = "workers.tasks.ping"
    spans = {
        "root": span("a1", "", "ping", "INTERNAL", CLIENT, (0, 40)),
        "request": span("a2", "a1", "GET", "CLIENT", CLIENT, (1, 39), attributes=status),
        "server": span("b1", "a2", "GET /ping", "SERVER", WEB, (3, 37), attributes=status),
        "send": span("b2", "b1", f"send {task}", "PRODUCER", WEB, (5, 8), attributes=queue),
        "run": span(
            *("c1", "b2", f"process {task}", "CONSUMER", WORKER, (10, 30)),
            attributes={**queue, **waits, "celery.task.state": "SUCCESS"},
            links=(Link(TRACE, "b2", {}),),
        ),
        "store": span(
            *("c2", "c1", "SET", "CLIENT", WORKER, (12, 13)), attributes={"db.system.name": "redis"}
        ),
    }
    return spans
