"""Write Prometheus' rules and Grafana's dashboard from the names of the metrics in the code.

``make monitoring`` runs this. It writes ``deploy/prometheus-rules.yaml`` and
``deploy/grafana-dashboard.json``; a test fails if they are not what this writes. Thresholds are at
the top: change them here, and run ``make monitoring`` again.
"""

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry.sdk.metrics.export import Sum
from opentelemetry.sdk.resources import Resource
from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_DESTINATION_NAME,
)
from opentelemetry.semconv._incubating.metrics.messaging_metrics import (
    MESSAGING_CLIENT_CONSUMED_MESSAGES,
    MESSAGING_CLIENT_SENT_MESSAGES,
    MESSAGING_PROCESS_DURATION,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE

from telemetry.export.aggregation import SPANS_DROPPED, Aggregation, spans_dropped
from telemetry.tracing.interpret import CELERY_TASK_NAME, CELERY_TASK_STATE
from telemetry.tracing.measurements import Measurement, Series
from telemetry.tracing.waits import CELERY_WAIT_PREFETCH, CELERY_WAIT_QUEUE, CELERY_WAIT_SCHEDULED

RULES = Path(__file__).parent / "prometheus-rules.yaml"
DASHBOARD = Path(__file__).parent / "grafana-dashboard.json"

#: Seconds: the steps in which the age of the oldest message is known. ``MAX_AGE`` is one of them.
AGES = (300, 900, 3600, 21600)
MAX_AGE = 900

#: Seconds that 5 % of the messages may exceed, in the queue and in a worker.
MAX_WAIT = 60

#: Shares of all runs.
MAX_FAILURES = 0.05
MAX_RETRIES = 0.25

#: The time for which an ended process, and a message that no worker takes, still count.
MEMORY = "1d"


def prometheus_names() -> dict[str, str]:
    """Return the name in Prometheus of each metric, by its name in the code.

    The Collector's ``UnderscoreEscapingWithSuffixes``: the unit and ``_total`` are appended, a
    histogram is that name with ``_bucket``, ``_count`` and ``_sum``.
    """
    aggregation, resource = Aggregation(Resource({})), Resource({})
    aggregation.add(Measurement(Series([_SENT], {}), [1]))
    names = (_TAKEN, _RUN, CELERY_WAIT_SCHEDULED, CELERY_WAIT_QUEUE, CELERY_WAIT_PREFETCH)
    aggregation.add(Measurement(Series(names, {}), [1] * len(names)))
    found = {}
    for data in (aggregation.collect(), spans_dropped(resource, 0, 0)):
        assert data is not None
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            unit = {"s": "_seconds"}.get(metric.unit or "", "")
            total = "_total" if isinstance(metric.data, Sum) else ""
            found[metric.name] = label(metric.name) + unit + total
    return found


def label(name: str) -> str:
    """Return the name that *name* has as a label in Prometheus."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


_SENT = MESSAGING_CLIENT_SENT_MESSAGES
_TAKEN = MESSAGING_CLIENT_CONSUMED_MESSAGES
_RUN = MESSAGING_PROCESS_DURATION

_QUEUE_LABEL, _TASK_LABEL = label(MESSAGING_DESTINATION_NAME), label(CELERY_TASK_NAME)
_ERROR, _STATE = label(ERROR_TYPE), label(CELERY_TASK_STATE)
_BY_TASK = f"{_TASK_LABEL}, {_QUEUE_LABEL}"

# The recorded series, named level:metric:operation as Prometheus recommends.
_SENT_SO_FAR = "instance_queue:queuehop_sent:last"
_TAKEN_SO_FAR = "instance_queue:queuehop_taken:last"
_RECORDING = "queuehop:recording"
WAITING = "queue:queuehop_waiting:messages"
OLDEST = "queue:queuehop_oldest:seconds"
LONGEST = "queue:queuehop_longest_wait:seconds"
WAIT_P95 = "queue:queuehop_wait_queue:p95"
PREFETCH_P95 = "queue:queuehop_wait_prefetch:p95"
FAILURES = "task_queue:queuehop_failures:ratio5m"
RETRIES = "task_queue:queuehop_retries:ratio5m"


class Rule(NamedTuple):
    """A recording rule, or an alert if there is a *summary*."""

    name: str
    expr: str
    comment: str = ""
    wait: str = ""
    severity: str = ""
    summary: str = ""
    description: str = ""


def rules() -> str:
    """Return the rule file."""
    groups = {
        "queuehop-queues": list(_queue_rules()),
        "queuehop-runs": list(_run_rules()),
        "queuehop-alerts": list(_alerts()),
    }
    lines = [
        "# Written by `make monitoring`; docs/alerts.md says what each rule means, and its limits.",
        "groups:",
    ]
    for group, members in groups.items():
        lines += [f"  - name: {group}", "    interval: 30s", "    rules:"]
        for rule in members:
            lines += _rule(rule)
    return "\n".join(lines) + "\n"


def _rule(rule: Rule) -> Iterator[str]:
    if rule.comment:
        yield from textwrap.wrap(
            rule.comment, 94, initial_indent=" " * 6 + "# ", subsequent_indent=" " * 6 + "# "
        )
    yield f"      - {'alert' if rule.summary else 'record'}: {rule.name}"
    yield "        expr: |"
    yield from (" " * 10 + line for line in rule.expr.splitlines())
    if rule.summary:
        yield f"        for: {rule.wait}"
        yield f"        labels: {{ severity: {rule.severity} }}"
        yield "        annotations:"
        yield f"          summary: {json.dumps(rule.summary)}"
        yield f"          description: {json.dumps(rule.description)}"


def _duration(seconds: int) -> str:
    return f"{seconds // 3600}h" if seconds % 3600 == 0 else f"{seconds // 60}m"


def _within(window: str) -> str:
    return f"queue:queuehop_sent:increase{window}"


def _queue_rules() -> Iterator[Rule]:
    names = prometheus_names()
    by = f"sum by (job, instance, {_QUEUE_LABEL})"

    def last(series: str) -> str:
        return f"{by} (last_over_time({series}[{MEMORY}]))"

    yield Rule(
        _RECORDING, "vector(1)", "Exists since these rules are evaluated: the increases need it."
    )
    yield Rule(
        _SENT_SO_FAR,
        last(f'{names[_SENT]}{{{_ERROR}=""}}'),
        "Messages that each process has sent. Some minutes after a process has ended, or has"
        " nothing new to export, its series is stale. It still counts.",
    )
    yield Rule(
        _TAKEN_SO_FAR,
        f"{last(names[_TAKEN])}\n- {last(names[_RUN] + '_count')}\n"
        f"+ {last(names[CELERY_WAIT_QUEUE] + '_count')}",
        "Only messages that queuehop sent: a run measures its wait only if the message has the time"
        " when it was sent.",
    )
    for window in (MEMORY, *map(_duration, AGES)):
        comment = ""
        if window == MEMORY:
            comment = (
                "Subtracts the count of each process at the start of the window: 0 if the process"
                " started later. While the rules are younger than the window, it subtracts the"
                " first count that they saw."
            )
        yield Rule(_within(window), _increase(_SENT_SO_FAR, window), comment)
    taken = f"queue:queuehop_taken:increase{MEMORY}"
    yield Rule(taken, _increase(_TAKEN_SO_FAR, MEMORY))
    sent = _within(MEMORY)
    yield Rule(
        WAITING,
        f"clamp_min({sent} - ({taken} or {sent} * 0), 0)",
        "Messages that were sent and whose run has not ended, over all hosts.",
    )
    steps = [f"{age} + 0 * ({WAITING} > {_within(_duration(age))})" for age in reversed(AGES)]
    yield Rule(
        OLDEST,
        "\nor ".join([*steps, f"0 * {WAITING}"]),
        "If more messages wait than were sent in a window, the oldest is older than the window.",
    )
    ended = f"(histogram_quantile(1, {_rate_by_le(names[CELERY_WAIT_QUEUE])}) >= 0)"
    yield Rule(
        LONGEST,
        f"{ended} > {OLDEST}\nor {OLDEST}\nor {ended}",
        "Of the waits that ended in the last five minutes and of those that have not ended.",
    )


def _increase(of: str, window: str) -> str:
    return textwrap.dedent(f"""\
        sum by ({_QUEUE_LABEL}) (
          {of} - (
            {of} offset {window}
            or min_over_time({of}[{window}]) unless on () ({_RECORDING} offset {window})
            or {of} * 0
          )
        )""")


def _rate_by_le(histogram: str, selector: str = "", window: str = "5m", by: str = "") -> str:
    return f"sum by (le, {by or _QUEUE_LABEL}) (rate({histogram}_bucket{selector}[{window}]))"


def _run_rules() -> Iterator[Rule]:
    names = prometheus_names()
    for name, histogram in ((WAIT_P95, CELERY_WAIT_QUEUE), (PREFETCH_P95, CELERY_WAIT_PREFETCH)):
        yield Rule(name, f"histogram_quantile(0.95, {_rate_by_le(names[histogram])}) >= 0")
    count = f"{names[_RUN]}_count"

    def share(selector: str) -> str:
        return (
            f"sum by ({_BY_TASK}) (rate({count}{{{selector}}}[5m]))\n"
            f"/ sum by ({_BY_TASK}) (rate({count}[5m])) > 0"
        )

    yield Rule(FAILURES, share(f'{_ERROR}!="", {_STATE}!="RETRY"'), "Of all runs.")
    yield Rule(RETRIES, share(f'{_STATE}="RETRY"'))


def _alerts() -> Iterator[Rule]:
    names = prometheus_names()
    queue, task = f"{{{{ $labels.{_QUEUE_LABEL} }}}}", f"{{{{ $labels.{_TASK_LABEL} }}}}"
    yield Rule(
        "QueuehopOldestMessage",
        f"{OLDEST} >= {MAX_AGE}",
        wait="2m",
        severity="critical",
        summary=f"Queue {queue}: a message has waited for more than {{{{ $value"
        " | humanizeDuration }}",
        description="More messages were sent than runs have ended. Check that workers are up and"
        f" consume {queue}, and compare with the number that the broker reports.",
    )
    for name, series, place, remedy in (
        ("QueuehopWaitInQueue", WAIT_P95, "in the queue", "Start more workers."),
        (
            *("QueuehopWaitInWorker", PREFETCH_P95, "in a worker before a process was free"),
            "Lower worker_prefetch_multiplier, or raise the concurrency.",
        ),
    ):
        yield Rule(
            name,
            f"{series} > {MAX_WAIT}",
            wait="5m",
            severity="warning",
            summary=f"Queue {queue}: 5% of the messages wait for more than {{{{ $value"
            f" | humanizeDuration }}}} {place}",
            description=f"{remedy} The exemplars in the dashboard link to the slowest traces.",
        )
    for name, series, most, what in (
        ("QueuehopFailures", FAILURES, MAX_FAILURES, "fail"),
        ("QueuehopRetries", RETRIES, MAX_RETRIES, "are retried"),
    ):
        yield Rule(
            name,
            f"{series} > {most}",
            wait="5m",
            severity="warning",
            summary=f"Task {task}: {{{{ $value | humanizePercentage }}}} of the runs {what}",
            description=f"Queue {queue}. The attribute error.type of the runs has the reason.",
        )
    dropped = names[SPANS_DROPPED]
    yield Rule(
        "QueuehopSpansDropped",
        f"sum by (job, instance) (increase({dropped}[15m])) > 0",
        wait="0m",
        severity="warning",
        summary="{{ $value | humanize }} spans were dropped in 15 minutes",
        description="Traces are incomplete. The application's log has the reason: the collector"
        " refused the spans, or it was down until they reached QUEUEHOP_SPOOL_MAX_BYTES.",
    )


def dashboard() -> str:
    """Return Grafana's dashboard."""
    names = prometheus_names()
    chosen = f'{_QUEUE_LABEL}=~"$queue"'
    both = f'{chosen}, {_TASK_LABEL}=~"$task"'
    run, dropped, window = names[_RUN], names[SPANS_DROPPED], "$__rate_interval"

    def quantile(histogram: str, of: float, by: str, selector: str) -> str:
        return (
            f"histogram_quantile({of}, "
            f"{_rate_by_le(names[histogram], '{' + selector + '}', window, by)})"
        )

    def rate(series: str, by: str, selector: str) -> str:
        return f"sum by ({by}) (rate({series}{{{selector}}}[{window}]))"

    by_queue, by_task = (
        f"{{{{{_QUEUE_LABEL}}}}}",
        f"{{{{{_TASK_LABEL}}}}} in {{{{{_QUEUE_LABEL}}}}}",
    )
    failed = f'{both}, {_ERROR}!="", {_STATE}!="RETRY"'
    retried = f'{both}, {_STATE}="RETRY"'
    rows = [
        (
            "Now",
            [
                _stat("Messages waiting", f"sum({WAITING}{{{chosen}}})", "short"),
                _stat("Oldest message, at least", f"max({OLDEST}{{{chosen}}})", "s", MAX_AGE),
                _stat("Wait in queue, p95", f"max({WAIT_P95}{{{chosen}}})", "s", MAX_WAIT),
                _stat("Failed runs", f"max({FAILURES}{{{both}}}) or vector(0)",
                      "percentunit", MAX_FAILURES),
                _stat("Retried runs", f"max({RETRIES}{{{both}}}) or vector(0)",
                      "percentunit", MAX_RETRIES),
                _stat("Spans dropped, 1 h", f"sum(increase({dropped}[1h]))", "short", 1),
            ],
        ),
        (
            "Waits",
            [
                _graph("Wait in queue", "s", {
                    f"p50 {by_queue}": quantile(CELERY_WAIT_QUEUE, 0.5, _QUEUE_LABEL, both),
                    f"p95 {by_queue}": quantile(CELERY_WAIT_QUEUE, 0.95, _QUEUE_LABEL, both),
                }, exemplars=True),
                _graph("Wait in worker, before a process was free", "s", {
                    f"p95 {by_queue}": quantile(CELERY_WAIT_PREFETCH, 0.95, _QUEUE_LABEL, both),
                }, exemplars=True),
                _graph("Messages waiting", "short", {by_queue: f"{WAITING}{{{chosen}}}"}),
                _graph("Longest wait", "s", {by_queue: f"{LONGEST}{{{chosen}}}"}),
                _graph("Sent", "cps", {by_task: rate(names[_SENT], _BY_TASK, both)}),
                _graph("Scheduled: countdown, eta, retry", "s", {
                    f"p95 {by_task}": quantile(CELERY_WAIT_SCHEDULED, 0.95, _BY_TASK, both),
                }),
            ],
        ),
        (
            "Runs",
            [
                _graph("Runs", "cps", {by_task: rate(f"{run}_count", _BY_TASK, both)}),
                _graph("Duration of a run, p95", "s", {
                    by_task: quantile(_RUN, 0.95, _BY_TASK, both),
                }, exemplars=True),
            ],
        ),
        (
            "Failures",
            [
                _graph("Failures", "cps", {
                    f"{by_task}: {{{{{_ERROR}}}}}":
                        rate(f"{run}_count", f"{_BY_TASK}, {_ERROR}", failed),
                }),
                _graph("Retries", "cps", {by_task: rate(f"{run}_count", _BY_TASK, retried)}),
                _graph("Sends that failed", "cps", {
                    f"{by_task}: {{{{{_ERROR}}}}}":
                        rate(names[_SENT], f"{_BY_TASK}, {_ERROR}", f'{both}, {_ERROR}!=""'),
                }),
                _graph("Spans dropped", "short", {
                    "{{job}}": f"sum by (job) (increase({dropped}[{window}]))",
                }),
            ],
        ),
    ]  # fmt: skip
    whole = {
        "title": "Celery with queuehop",
        "uid": "queuehop",
        "description": "Waits, runs and failures, by task and queue. Written by `make monitoring`.",
        "tags": ["celery", "opentelemetry", "queuehop"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                _variable("queue", "Queue", f"label_values({names[_SENT]}, {_QUEUE_LABEL})"),
                _variable("task", "Task", f"label_values({names[_SENT]}, {_TASK_LABEL})"),
            ]
        },
        "annotations": {"list": []},
        "panels": _placed(rows),
    }
    return json.dumps(whole, indent=1) + "\n"


_SOURCE = {"type": "prometheus", "uid": "${datasource}"}

Panel = dict[str, Any]


def _variable(name: str, title: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": title,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _stat(title: str, expr: str, unit: str, most: float | None = None) -> Panel:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if most is not None:
        steps.append({"color": "red", "value": most})
    return {
        "type": "stat",
        "title": title,
        "datasource": _SOURCE,
        "targets": [{"refId": "A", "expr": expr, "datasource": _SOURCE}],
        "fieldConfig": {
            "defaults": {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": {
            "reduceOptions": {"calcs": ["lastNotNull"]},
            "graphMode": "area",
            "colorMode": "value",
            "textMode": "auto",
            "justifyMode": "auto",
            "orientation": "auto",
            "wideLayout": True,
            "showPercentChange": False,
            "percentChangeColorMode": "standard",
        },
    }


def _graph(title: str, unit: str, exprs: dict[str, str], exemplars: bool = False) -> Panel:
    return {
        "type": "timeseries",
        "title": title,
        "datasource": _SOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "expr": expr,
                "legendFormat": legend,
                "exemplar": exemplars,
                "datasource": _SOURCE,
            }
            for number, (legend, expr) in enumerate(exprs.items())
        ],
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {
            "legend": {
                "showLegend": True,
                "displayMode": "list",
                "placement": "bottom",
                "calcs": [],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _placed(rows: list[tuple[str, list[Panel]]]) -> list[Panel]:
    """Return the panels of all *rows*, each under its heading, with numbers and places."""
    panels: list[Panel] = []
    top = 0
    for title, members in rows:
        place = {"x": 0, "y": top, "w": 24, "h": 1}
        row = {"type": "row", "title": title, "collapsed": False, "panels": []}
        panels.append({**row, "gridPos": place})
        top += 1
        small = members[0]["type"] == "stat"
        width, height = (24 // len(members), 4) if small else (12, 8)
        for number, panel in enumerate(members):
            line, column = divmod(number * width, 24)
            place = {"x": column, "y": top + line * height, "w": width, "h": height}
            panels.append({**panel, "gridPos": place})
        top += ((len(members) * width + 23) // 24) * height
    return [{"id": number, **panel} for number, panel in enumerate(panels, 1)]


if __name__ == "__main__":
    RULES.write_text(rules())
    DASHBOARD.write_text(dashboard())
