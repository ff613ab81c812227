"""The conditions of a search, in SQL over the rows of ``found``."""

import re
import sqlite3
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..analysis.counts import OUTCOMES
from .attributes import has_attribute, is_possible
from .database import rows_of
from .incoming import MAX_TIME
from .log_table import traces_with_log
from .query import CELERY_STATES, Attribute, Bound, Field, Id, Part, Word
from .read import numbers_with
from .waiting import STATES, times

#: The condition of a live trace. It must equal that of the index ``found_live`` word for word.
LIVE = f"due_ns < {MAX_TIME} OR expiring"

# The current duration and wait of a live trace. They grow after the trace was summarized.
DURATION = (
    "max(duration_ns, (due_ns < :never) * (:now - start_ns), "
    "iif(expiring, (SELECT max(min(:now, w.expires_ns)) FROM waiting w "
    "WHERE w.trace = found.trace) - start_ns, 0))"
)
WAIT = (
    "max(wait_ns, :now - due_ns, "
    "iif(expiring, (SELECT max(min(:now, w.expires_ns) - w.due_ns) FROM waiting w "
    "WHERE w.trace = found.trace), 0))"
)

#: The time range of a search without one.
ALWAYS = (0, MAX_TIME)

#: A condition that no trace meets.
NONE = "FALSE"

#: The kinds of terms that a word matches.
NAMES = ("service", "task", "queue", "broker", "route", "exception", "name")

#: The beginning of a trace id, or of a task id with the dashes of a UUID.
BEGINNING = re.compile(r"[0-9a-f]{8}[0-9a-f-]{0,27}", re.I)

#: If fewer traces have a term, only they are read.
FEW = 3_000

#: If fewer traces have a term, they are listed, and each trace that is read is looked up in the
#: list. If more have it, the first of them are found soon without a list.
LISTED = 100_000

#: The number of newest traces in which the frequency of an attribute is measured.
SAMPLE = 2_000

#: The most traces of one id.
MOST_WITH_ID = 1_000


class Message(NamedTuple):
    """The message that a search asks for, and the exception of its run.

    None means any, and ``""`` that the message has no such name.
    """

    broker: str | None = None
    queue: str | None = None
    task: str | None = None
    exception: str | None = None

    @property
    def flow(self) -> tuple[str | None, str | None, str | None]:
        return self[:3]


class Conditions:
    """The conditions of one search, joined by AND, and their parameters.

    The states of messages and runs must be those of a *message* that the search asks for, in the
    time *during*, whose two ends are Unix times.

    ``{wait}`` and ``{duration}`` are placeholders for the wait and duration of a trace.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        now_ns: int,
        stuck_after_ns: int,
        message: Message,
        during: tuple[int, int] = ALWAYS,
    ) -> None:
        self._db = db
        self._message = message
        self.during = since, until = during
        #: The conditions that need no other table, and those that look up each trace in one.
        self.comparisons: list[str] = []
        self.look_ups: list[str] = []
        if since:  # also the traces that began before the range and are active in it
            self.where("start_ns + {duration} >= :since")
        if until < MAX_TIME:
            self.where("found.start_ns <= :until")
        self.values: dict[str, Any] = {
            "never": MAX_TIME,
            "since": since,
            "until": until,
            **times(now_ns, stuck_after_ns),
        }
        self._attributes: list[Attribute] = []
        #: Whether a condition lists the traces, so that few rows are read.
        self.is_narrow = False

    def value(self, value: Any) -> str:
        """Add a parameter and return its placeholder in SQL."""
        name = f"v{len(self.values)}"
        self.values[name] = value
        return f":{name}"

    def where(self, text: str) -> None:
        """Add a condition."""
        (self.look_ups if "EXISTS" in text else self.comparisons).append(text)

    @property
    def has_attributes(self) -> bool:
        """Whether ``admits`` must be called for each trace."""
        return bool(self._attributes)

    def admits(self, trace: int) -> bool:
        """Return whether *trace*, which meets all conditions, has the attributes too."""
        return all(has_attribute(self._db, trace, a.key, a.value) for a in self._attributes)

    def add(self, part: Part) -> None:
        """Add a part of a query."""
        match part:
            case Word(text):
                traces = self._with_message(text)
                if BEGINNING.fullmatch(text):
                    traces += self._with_beginning(text.lower())
                self._any_of(traces, self._containing(NAMES, text))
            case Id("trace", text):
                traces = self._with_trace_id(text)
                self._any_of(traces if len(text) < 32 else traces + self._with_message(text))
            case Id("span", text):
                self._any_of(self._with_span(text) + self._with_beginning(text))
            case Id(_, text):
                self._any_of(self._with_message(text))
            case Field("log", text):
                self._any_of(traces_with_log(self._db, text))
            case Field("status", text):
                self.has_status(text)
            case Field(_, "", True):
                self.has_message()
            case Field(name, text, exact):
                terms = self._equal(name, text) if exact else self._containing((name,), text)
                self._any_of([], terms)
            case Bound(name, operator, ns):
                self.where(f"{{{name}}} {operator} {self.value(ns)}")
            case Attribute(key, value):
                self.where(self._may_have(is_possible(key, value)))
                self._attributes.append(part)

    def has_message(self) -> None:
        """Require a message of this broker, queue and task."""
        self._any_of([], self._flows())

    def has_exception(self) -> None:
        """Require a run that ended by the exception."""
        self.where(self._has_run())

    def has_status(self, status: str) -> None:
        """Require a status of the trace, or a state of one of its messages or runs."""
        conditions = []
        live = next((condition for state, condition in STATES.items() if state == status), None)
        if live is not None:
            # ``found`` has a column due_ns, too.
            condition = live.replace("due_ns", "waiting.due_ns")
            if status == "expired":
                condition += " AND expires_ns BETWEEN :since AND :until"
            conditions.append(
                f"(({LIVE}) AND EXISTS (SELECT 1 FROM waiting WHERE waiting.trace = found.trace "
                f"AND {condition} AND {self._is_asked_for('broker', 'queue', 'task')}))"
            )
        outcome = OUTCOMES.get(status.upper())
        if self._message != Message() and outcome is not None:
            conditions.append(self._has_run(f"outcome = {outcome}"))
        else:
            if live is None:
                conditions.append(f"status = {self.value(status)}")
            if ran := self._equal("state", status.upper()) if status in CELERY_STATES else []:
                conditions.append(self._has_term(ran))
        self.where(f"({' OR '.join(conditions)})")

    def _has_run(self, *more: str) -> str:
        """Return the condition that a trace has a run of the message in the time range."""
        conditions = ["start_ns BETWEEN :since AND :until", *more]
        if any(part is not None for part in self._message.flow):
            conditions.append(f"flow IN ({_list(self._flows())})")
        if self._message.exception is not None:
            ended_by = self._equal("exception", self._message.exception)
            conditions.append(f"failure <> 0 AND failure IN ({_list(ended_by)})")
        return f"found.trace IN (SELECT trace FROM runs WHERE {' AND '.join(conditions)})"

    def _flows(self) -> list[int]:
        """Return the terms of the broker, queue and task of the message."""
        asked = self._is_asked_for(*(f"json_extract(value, '$[{at}]')" for at in range(3)))
        query = f"SELECT id FROM terms WHERE kind = 'flow' AND {asked}"
        return [number for (number,) in self._db.execute(query, self.values)]

    def _is_asked_for(self, *columns: str) -> str:
        """Return the condition that *columns*, of broker, queue and task, are the message's."""
        asked = [
            f"{column} = {self.value(value)}"
            for column, value in zip(columns, self._message.flow, strict=True)
            if value is not None
        ]
        return " AND ".join(asked) or "TRUE"

    def _any_of(self, traces: list[int], terms: list[int] | None = None) -> None:
        """Require one of *traces*, or a trace that has one of *terms*."""
        conditions = []
        self.is_narrow |= not terms
        if traces:
            conditions.append(f"found.trace IN ({_list(traces)})")
        if terms:
            conditions.append(self._has_term(terms))
        self.where(f"({' OR '.join(conditions)})" if conditions else NONE)

    def _has_term(self, terms: list[int]) -> str:
        has_term = f"term IN ({_list(terms)})"
        (count,) = self._db.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM named WHERE {has_term} LIMIT {LISTED})"
        ).fetchone()
        if count < LISTED:
            self.is_narrow |= count < FEW
            return f"found.trace IN (SELECT trace FROM named WHERE {has_term})"
        # "+": look up a trace once, instead of once for each term.
        return (
            "EXISTS (SELECT 1 FROM named INDEXED BY named_trace "
            f"WHERE named.trace = found.trace AND +named.{has_term})"
        )

    def _may_have(self, condition: str) -> str:
        """Return the condition that a trace may have an attribute."""
        (common,) = self._db.execute(
            f"SELECT coalesce(sum({condition}), 0) FROM "
            f"(SELECT * FROM attributes ORDER BY trace DESC LIMIT {SAMPLE})"
        ).fetchone()
        if common < SAMPLE // 20:
            self.is_narrow = True
            return f"found.trace IN (SELECT trace FROM attributes WHERE {condition})"
        return (
            "EXISTS (SELECT 1 FROM attributes "
            f"WHERE attributes.trace = found.trace AND {condition})"
        )

    def _containing(self, kinds: Iterable[str], text: str) -> list[int]:
        """Return the terms of *kinds* that contain *text*, ignoring case."""
        marks = ", ".join(f"'{kind}'" for kind in kinds)
        wanted = text.casefold()
        query = f"SELECT id, value FROM terms WHERE kind IN ({marks})"
        rows = rows_of(self._db, "id, value", query)
        return [number for number, value in rows if wanted in value.casefold()]

    def _equal(self, kind: str, text: str) -> list[int]:
        query = "SELECT id FROM terms WHERE kind = ? AND value = ?"
        return [number for (number,) in self._db.execute(query, (kind, text))]

    def _with_beginning(self, text: str) -> list[int]:
        """Return the traces with an id, of theirs or of a message, that begins with *text*."""
        query = "SELECT DISTINCT trace FROM messages WHERE message_id BETWEEN ? AND ?"
        found = self._traces(query, text, text + chr(sys.maxunicode))
        return found if "-" in text or len(text) > 32 else found + self._with_trace_id(text)

    def _with_trace_id(self, prefix: str) -> list[int]:
        return numbers_with(self._db, prefix, MOST_WITH_ID)

    def _with_span(self, span_id: str) -> list[int]:
        return self._traces("SELECT trace FROM spans WHERE span_id = ?", bytes.fromhex(span_id))

    def _with_message(self, message_id: str) -> list[int]:
        query = "SELECT trace FROM messages WHERE message_id IN (?, lower(?))"
        return self._traces(query, message_id, message_id)

    def _traces(self, query: str, *values: Any) -> list[int]:
        rows = self._db.execute(f"{query} LIMIT {MOST_WITH_ID}", values)
        return [number for (number,) in rows]


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
