"""The one kind of span: a hop, or the application's own tracer, fills its record."""

import traceback
from collections.abc import Mapping
from time import time_ns
from types import TracebackType
from typing import Any, Protocol

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_ESCAPED,
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
)
from opentelemetry.trace import Link, Span, SpanContext, Status, StatusCode
from opentelemetry.util.types import Attributes, AttributeValue

from ..config.sdk import Event, ReadableSpan, SpanLimits
from .faults import is_soft_time_limit, log_internal_error, logger
from .interpret import interpret
from .interrupts import cleans_up, uninterrupted
from .limits import clean, exceeds, is_plain, recorded_link
from .record import Parent, Record, RecordedEvent, RecordedLink, SpanTemplate, span_context


class SpanOwner(Protocol):
    """The part of a provider that its spans use."""

    limits: SpanLimits
    #: Whether the limits could cut a hop's own facts.
    has_narrow_limits: bool

    @property
    def resource(self) -> Resource: ...
    def finish(self, span: "HopSpan", end_time: int | None) -> None: ...


def _reads(name: str) -> Any:
    return property(lambda span: getattr(span.readable(), name), doc=f"The {name} so far.")


class HopSpan(Span):
    """A span that records facts, and interprets them when they are read.

    It has the attributes of an SDK span (``name``, ``attributes``, ``parent``, …) as
    properties, which interpret the record so far.
    """

    _context: SpanContext | None = None
    #: Whether ``with span:`` records an exception, and whether it sets the status.
    on_exception = True, True

    def __init__(
        self,
        owner: SpanOwner,
        template: SpanTemplate,
        record: Record,
        parent: Parent | None,
        recorded: bool,
    ) -> None:
        self._owner = owner
        self.template = template
        self.record = record
        self._parent = parent
        #: The sampler's decision. A span that is not recorded still counts in the metrics.
        self.recorded = recorded
        #: Deleted when the span ends. If several threads end it, one succeeds.
        self._open = True

    def get_span_context(self) -> SpanContext:
        """Return the span's own context."""
        if self._context is None:
            self._context = self.record.span_context()
        return self._context

    def is_recording(self) -> bool:
        """Return whether the span is recorded and has not ended."""
        return self.recorded and not self.record.end_time

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Set one attribute. A value of a type that OTLP lacks becomes a string."""
        if not self._accepts("attribute"):
            return
        limits, record = self._owner.limits, self.record
        if record.attributes is None:
            record.attributes = {}
        attributes = record.attributes
        attributes.pop(key, None)  # the newest is the last
        if limits.max_span_attribute_length is None and is_plain(key, value):
            attributes[key] = value
        else:
            cleaned, dropped = clean({key: value}, None, limits.max_span_attribute_length)
            attributes.update(cleaned)
            self._count_dropped(0, dropped)
        most = limits.max_span_attributes
        while most is not None and len(attributes) > most:
            del attributes[next(iter(attributes))]
            self._count_dropped(0, 1)
        self._accepts("attribute")

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set several attributes."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(
        self, name: str, attributes: Attributes = None, timestamp: int | None = None
    ) -> None:
        """Add an event, at *timestamp* in Unix nanoseconds or now."""
        limits = self._owner.limits
        cleaned = clean(attributes, limits.max_event_attributes, limits.max_attribute_length)
        event = RecordedEvent(name, time_ns() if timestamp is None else timestamp, *cleaned)
        if self.record.events is None:
            self.record.events = []
        self._add(self.record.events, event, limits.max_events, 1, "event")

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Add a link to the span of *context*."""
        link = recorded_link(context, attributes, self._owner.limits)
        if link is not None:
            if self.record.links is None:
                self.record.links = []
            self._add(self.record.links, link, self._owner.limits.max_links, 2, "link")

    def _add(self, items: list[Any], item: object, most: int | None, what: int, name: str) -> None:
        if not self._accepts(name):
            return
        items.append(item)
        while most is not None and len(items) > most:
            del items[0]
            self._count_dropped(what, 1)
        self._accepts(name)

    def _count_dropped(self, what: int, count: int) -> None:
        dropped = list(self.record.dropped)
        dropped[what] += count
        self.record.dropped = dropped[0], dropped[1], dropped[2]

    def _accepts(self, what: str) -> bool:
        """Return whether the span is recording. Log that *what* may be missing if it has ended.

        Another thread may end the span at any time, so it is asked before and after a change.
        """
        if not self.record.end_time:
            return self.recorded
        self._log_late(what)
        return False

    @uninterrupted  # logging swallows what is raised in a handler
    def _log_late(self, what: str) -> None:
        logger.warning("%s set on span %r after it ended: it may be missing", what, self.name)

    def update_name(self, name: str) -> None:
        """Give the span another name."""
        if self._accepts("name"):
            self.record.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status. OK is final, and UNSET changes nothing."""
        if not self._accepts("status"):
            return
        code = status if isinstance(status, StatusCode) else status.status_code
        if isinstance(status, Status):
            description = status.description
        if code is StatusCode.UNSET or self.record.status == StatusCode.OK.value:
            return
        self.record.status = code.value
        self.record.status_description = description if code is StatusCode.ERROR else None

    @uninterrupted
    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add the event of an *exception*, with its message and its traceback."""
        described: dict[str, AttributeValue] = {
            EXCEPTION_TYPE: error_type(exception),
            EXCEPTION_MESSAGE: exception_message(exception),
            EXCEPTION_STACKTRACE: "".join(traceback.format_exception(exception)),
            EXCEPTION_ESCAPED: str(escaped),
            **(attributes or {}),
        }
        self.add_event("exception", described, timestamp)

    @cleans_up
    def end(self, end_time: int | None = None) -> None:
        """End the span, at *end_time* in Unix nanoseconds or now, and write its record."""
        if not self.end_once(end_time):
            logger.warning("span %r ended a second time: ignored", self.name)

    @cleans_up
    def end_once(self, end_time: int | None = None) -> bool:
        """End the span as ``end`` does. Return whether it had not ended before."""
        try:
            del self._open
        except AttributeError:
            return False
        try:
            self._owner.finish(self, end_time)
        except BaseException:
            # A signal, such as that of a soft time limit, may raise at any instruction.
            self._owner.finish(self, end_time)
            raise
        return True

    def apply_limits(self) -> None:
        """Cut the attributes and links, facts included, if they may exceed the limits."""
        limits, record = self._owner.limits, self.record
        if not self.recorded or not (
            self._owner.has_narrow_limits
            or exceeds(limits.max_span_attributes, len(record.attributes or ()))
            or exceeds(limits.max_links, len(record.links or ()))
        ):
            return
        interpretation = interpret(self.template, record)
        attributes = interpretation.attributes(self.template, record)
        most, length = limits.max_span_attributes, limits.max_span_attribute_length
        record.attributes, dropped = clean(attributes, most, length)
        links = list(interpretation.links)
        cut = 0 if limits.max_links is None else max(0, len(links) - limits.max_links)
        record.links = links[cut:]
        record.dropped = record.dropped[0] + dropped, record.dropped[1], record.dropped[2] + cut
        record.limited = True

    @cleans_up
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """End the span. An exception fails it as the arguments of ``start_span`` ask."""
        if exc_val is not None and self.is_recording():
            fail_as_asked(self, exc_val, *self.on_exception)
        self.end()

    @property
    def parent(self) -> SpanContext | None:
        """The context of the parent, None for a root."""
        return self._parent.span_context() if self._parent is not None else None

    def readable(self) -> ReadableSpan:
        """Return the span so far as the SDK's own class, for code that reads or exports it."""
        return readable(self.template, self.record, self._owner.resource, self.parent)

    def to_json(self, indent: int | None = 4) -> str:
        """Return the span so far as JSON, as the SDK writes it."""
        written: str = self.readable().to_json(indent)
        return written

    name = property(lambda span: interpret(span.template, span.record).name)
    context = property(get_span_context)
    kind = _reads("kind")
    attributes = _reads("attributes")
    status = _reads("status")
    start_time = _reads("start_time")
    end_time = _reads("end_time")
    events = _reads("events")
    links = _reads("links")
    resource = _reads("resource")
    instrumentation_scope = _reads("instrumentation_scope")
    dropped_attributes = _reads("dropped_attributes")
    dropped_events = _reads("dropped_events")
    dropped_links = _reads("dropped_links")

    def __repr__(self) -> str:
        return f"HopSpan(name={self.name!r}, context={self.get_span_context()})"


def readable(
    template: SpanTemplate, record: Record, resource: Resource, parent: SpanContext | None = None
) -> ReadableSpan:
    """Return the span of *record* as the SDK's own class, for span processors and its encoder."""
    interpretation = interpret(template, record)
    attributes = BoundedAttributes(None, interpretation.attributes(template, record))
    events: BoundedList[Event] = BoundedList.from_seq(None, list(map(_event, record.events or ())))
    links: BoundedList[Link] = BoundedList.from_seq(None, list(map(api_link, interpretation.links)))
    attributes.dropped, events.dropped, links.dropped = record.dropped
    if parent is None and record.parent_id:
        parent = span_context(record.trace_id, record.parent_id, 0, record.parent_is_remote)
    scope = template.scope
    return ReadableSpan(
        name=interpretation.name,
        context=record.span_context(),
        parent=parent,
        resource=resource,
        attributes=attributes,
        events=events,
        links=links,
        kind=template.span_kind,
        status=Status(StatusCode(record.status), record.status_description),
        start_time=record.start_time,
        end_time=record.end_time or None,
        instrumentation_scope=InstrumentationScope(
            scope.name, scope.version, scope.schema_url, scope.attributes
        ),
    )


def _event(event: RecordedEvent) -> Event:
    return Event(event.name, event.attributes, event.time)


def api_link(link: RecordedLink) -> Link:
    """Return a recorded link as OpenTelemetry's API has it."""
    context = span_context(
        link.trace_id, link.span_id, link.flags, link.is_remote, link.trace_state
    )
    return Link(context, link.attributes)


def fail_as_asked(
    span: Span, exc: BaseException, record_exception: bool, set_status_on_exception: bool
) -> None:
    """Record *exc* and set the status of *span*, as the arguments of ``start_span`` ask."""
    try:
        if record_exception:
            span.record_exception(exc)
        if set_status_on_exception:
            span.set_status(Status(StatusCode.ERROR, f"{type(exc).__name__}: {exc}"))
    except Exception:  # a message or a traceback that cannot be formatted
        log_internal_error("describe an exception")


def error_type(exc: BaseException) -> str:
    """Return the fully qualified class name of *exc*, as ``error.type`` wants it."""
    module, name = type(exc).__module__, type(exc).__qualname__
    return name if module == "builtins" else f"{module}.{name}"


def exception_message(exc: BaseException) -> str:
    """Return the message of *exc*. If its ``__str__`` raises, it is what a traceback has there."""
    try:
        return str(exc)
    except Exception as failure:
        if is_soft_time_limit(failure):
            raise
        return "<exception str() failed>"
