"""The fast path of a hop's span: made without what most spans never use.

An SDK span makes a lock, three bounded containers and a copy of itself, calls two processors and
asks a sampler: 14 µs for what, in nearly every run, is a few attributes between two times. A light
span is an SDK span that makes each of these when somebody first asks for it, and is then handled
as any other. One that nobody asked goes to disk at once, and what all spans of its shape have in
common is encoded once.

There is a light span only where nothing can tell the difference: the durable export is the only
processor, the sampler's answer is known without asking it, and no limit of the SDK's could cut
anything. A test holds what is received of light spans against what the SDK makes of the same.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import time_ns
from typing import Any, ClassVar, Protocol

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.environment_variables import OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    DEFAULT_TRACE_STATE,
    INVALID_SPAN_CONTEXT,
    Link,
    SpanContext,
    SpanKind,
    Status,
    TraceFlags,
)
from opentelemetry.util.types import AttributeValue

from . import otlp
from .sdk import SpanLimits, TracerProvider, sampling
from .series import Measured

__all__ = ["Facts", "Later", "Light", "LightSpan", "Provider", "Shape", "child_of"]

#: A light span has no more links, and no more attributes of its own; a shape has fewer still.
_MOST_LINKS, _MOST_OWN, _MOST_ATTRIBUTES = 16, 32, 64

_PLAIN = frozenset({str, int, float, bool})

_FLAGS = [TraceFlags(flags) for flags in range(4)]


class Shape:
    """What all spans of one hop have in common: *name*, *kind* and *attributes*."""

    __slots__ = ("attributes", "encoded", "head", "kind", "kind_field", "name")

    def __init__(
        self, name: str, kind: SpanKind, attributes: Mapping[str, AttributeValue] | None = None
    ) -> None:
        self.name = name
        self.kind = kind
        self.attributes = attributes or {}
        self.kind_field = otlp.encode_kind(kind)
        #: Name and kind, and the attributes, encoded; None where only the SDK may know how.
        self.head: bytes | None = None
        self.encoded: bytes | None = None
        with suppress(Exception):
            self.head = otlp.encode_name(name) + self.kind_field
            self.encoded = otlp.encode_attributes(self.attributes)


class Facts(Protocol):
    """What is said of one span in particular, and can say it as bytes at once."""

    #: All attributes that it may have.
    keys: ClassVar[frozenset[str]]

    def attributes(self) -> dict[str, AttributeValue]:
        """Return them."""

    def encoded(self) -> bytes:
        """Return them as fields of ``Span``: what ``otlp.encode_attributes`` would return."""


class Keeper(Protocol):
    """What light spans are handed to: ``spool.processor.SpoolProcessor``."""

    def keep(self, encoded: bytes, resource: Resource, measured: Measured | None) -> None: ...

    def keep_parts(
        self, template: Any, parts: bytes, resource: Resource, measured: Measured
    ) -> None: ...


class Provider(TracerProvider):
    """The SDK's provider, which knows whether its spans may be light."""

    #: What starts light spans, None where somebody else looks at spans too.
    light: "Light | None" = None

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Hand all spans to *span_processor* too."""
        self.light = None  # somebody else looks at spans
        super().add_span_processor(span_processor)


class Light:
    """Starts light spans of *provider*, to be kept by *keeper*."""

    def __init__(
        self, provider: TracerProvider, scope: InstrumentationScope, keeper: Keeper
    ) -> None:
        self.provider = provider
        self.scope = scope
        self.keeper = keeper
        #: Whether every root is sampled, and every child of a sampled span.
        self._roots, self.children = _always_sampled(provider.sampler)
        ids = provider.id_generator
        self.new_id = ids.generate_span_id
        self._new_trace_id = ids.generate_trace_id
        self._flags_of_root = _FLAGS[3 if ids.is_trace_id_random() else 1]

    def start(
        self,
        shape: Shape,
        parent: SpanContext | None,
        own: dict[str, AttributeValue],
        facts: Facts | None,
        links: Sequence[SpanContext],
        start_time: int | None,
    ) -> "LightSpan | None":
        """Return a light span, None where there can be none. Arguments are as for ``hop.start``."""
        if len(links) > _MOST_LINKS:
            return None
        if parent is not None:
            if not (parent.trace_flags & 1 and self.children):
                return None
            context = child_of(parent, self.new_id())
        elif self._roots:
            ids = self._new_trace_id(), self.new_id()
            made = *ids, False, self._flags_of_root, DEFAULT_TRACE_STATE, True
            context = tuple.__new__(SpanContext, made)
        else:
            return None
        # Not by its class: the SDK makes its own in two steps, with a check in Python.
        span: LightSpan = object.__new__(LightSpan)
        span._light = self
        span._shape = shape
        span._name = shape.name
        span._context = context
        span._parent = parent
        span._own = own
        span._facts = facts
        span._linked = links
        span._start_time = time_ns() if start_time is None else start_time
        span._pending = span._unclaimed = True
        return span


def child_of(parent: SpanContext, span_id: int) -> SpanContext:
    """Return the context of a span under *parent*, as ``SpanContext()`` makes it."""
    trace_id, _, _, flags, state, _ = parent  # valid already
    made = trace_id, span_id, False, _FLAGS[flags & 3], state, True
    return tuple.__new__(SpanContext, made)


def _always_sampled(sampler: sampling.Sampler) -> tuple[bool, bool]:
    """Say whether *sampler* takes every root, and every child of a sampled span."""
    said = str(sampler.get_description())
    always = str(sampling.ALWAYS_ON.get_description())
    if said == always:
        return True, True
    of_parent = isinstance(sampler, sampling.ParentBased)
    children = of_parent and all(
        f"{whose}ParentSampled:{always}" in said for whose in ("remote", "local")
    )
    return of_parent and f"{{root:{always}," in said, children


class Later:
    """An attribute of a light span that is made when somebody first asks for it."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, span: "LightSpan | None", owner: type) -> Any:
        if span is None:
            return self
        # Two threads may come at once: both get the one that stays.
        return span.__dict__.setdefault(self._name, self._make(span))


class _Changing(Later):
    """One for which the SDK asks in order to change the span, or to read what may be changed."""

    def __get__(self, span: "LightSpan | None", owner: type) -> Any:
        if span is not None:
            span._claim()
        return super().__get__(span, owner)


class LightSpan(Span):
    """A span of a shape, with facts and attributes of its own, that makes the rest if asked.

    As long as it is pending, nobody has asked.
    """

    # Most spans need nothing but these: no dict is made for them. They are found at once, which
    # they would not be in a class that has ``__getattr__``.
    __slots__ = (
        "_context",
        "_facts",
        "_light",
        "_linked",
        "_name",
        "_own",
        "_parent",
        "_pending",
        "_shape",
        "_start_time",
        "_unclaimed",
    )

    _context: SpanContext
    _facts: Facts | None
    _light: Light
    _linked: Sequence[SpanContext]
    _name: str
    _own: dict[str, AttributeValue]
    _parent: SpanContext | None
    _pending: bool
    _shape: Shape
    _start_time: int
    #: There until it is claimed.
    _unclaimed: bool

    _end_time: int | None = None
    _measured: Measured | None = None
    _status = Status()
    _sampler = None
    _trace_config = None
    _instrumentation_info = None
    _record_exception = True
    _set_status_on_exception = True
    _record_end_metrics = None

    _kind = Later(lambda span: span._shape.kind)
    _limits = Later(lambda span: span._light.provider._span_limits)
    _resource = Later(lambda span: span._light.provider.resource)
    _instrumentation_scope = Later(lambda span: span._light.scope)
    _span_processor = Later(lambda span: span._light.provider._active_span_processor)
    # Whatever the SDK changes, it takes the lock for.
    _lock = _Changing(lambda span: threading.Lock())
    _events = _Changing(lambda span: BoundedList(span._limits.max_events))
    _links = _Changing(lambda span: span._new_links([Link(one) for one in span._linked]))

    @_Changing
    def _attributes(self) -> BoundedAttributes:
        facts = self._facts.attributes() if self._facts is not None else {}
        return BoundedAttributes(
            self._limits.max_span_attributes,
            {**self._shape.attributes, **facts, **self._own},
            immutable=self._end_time is not None,
            max_value_len=self._limits.max_span_attribute_length,
        )

    def get_span_context(self) -> SpanContext:
        """Return the span's context, in half the time."""
        return self._context

    def set_attribute(self, key: str, value: Any) -> None:
        """Set one attribute, as the SDK does."""
        if (
            self._pending
            and type(value) in _PLAIN
            and type(key) is str
            and key
            and key not in self._shape.attributes
            and (self._facts is None or key not in self._facts.keys)
            and len(self._own) < _MOST_OWN
        ):
            self._own.pop(key, None)  # as there, what is said again comes last
            self._own[key] = value
        else:
            super().set_attribute(key, value)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes, as the SDK does."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def describe(self, shape: Shape, facts: Facts | None) -> bool:
        """Take *shape* and *facts* for those that it began with, if that can be; say whether."""
        if not self._pending:
            return False
        if said := self._own.keys():
            known = facts.keys if facts is not None else frozenset()
            if not (said.isdisjoint(shape.attributes) and said.isdisjoint(known)):
                return False
        self._name, self._shape, self._facts = shape.name, shape, facts
        return True

    def update_name(self, name: str) -> None:
        """Give the span another name."""
        if self._pending and type(name) is str:
            self._name = name
        else:
            super().update_name(name)

    def end(self, end_time: int | None = None, measured: Measured | None = None) -> None:
        """End the span, with what was *measured* of it."""
        shape, facts = self._shape, self._facts
        if self._pending and shape.head is not None and shape.encoded is not None:
            end = time_ns() if end_time is None else end_time
            try:
                named = shape.head
                if self._name is not shape.name:
                    named = otlp.encode_name(self._name) + shape.kind_field
                told = shape.encoded if facts is None else shape.encoded + facts.encoded()
                encoded = otlp.encode_hop(
                    self._context,
                    self._parent,
                    named,
                    self._start_time,
                    end,
                    told,
                    self._own,
                    self._linked,
                )
            except Exception:  # what that does not know, the SDK's encoder may
                pass
            else:
                if self._claim():
                    self._end_time = end
                    light = self._light
                    light.keeper.keep(encoded, light.provider.resource, measured)
                    return
        self._measured = measured
        super().end(end_time)

    def _claim(self) -> bool:
        """End being pending; say whether it was. Of several threads, one alone is told so."""
        self._pending = False
        try:
            del self._unclaimed
        except AttributeError:
            return False
        return True

    def _readable_span(self) -> ReadableSpan:
        readable = super()._readable_span()
        readable.measured = self._measured  # type: ignore[attr-defined]
        return readable


def light(provider: TracerProvider, scope: InstrumentationScope, keeper: Keeper) -> Light | None:
    """Return what starts light spans of *provider*, None where they could be told from others."""
    if not all(hasattr(provider, name) for name in ("_span_limits", "_active_span_processor")):
        return None
    if os.environ.get(OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED, "").strip().lower() == "true":
        return None  # the SDK counts the spans that it makes
    light = Light(provider, scope, keeper)
    return light if _is_known(light) and _is_roomy(provider._span_limits) else None


def _is_known(light: Light) -> bool:
    """Say whether the installed SDK's spans are made of what a light span has or can make."""
    stock = _SdkSpan("", INVALID_SPAN_CONTEXT, limits=light.provider._span_limits)
    context = SpanContext(1, 2, False, _FLAGS[3], None)
    if tuple(context) != (1, 2, False, 3, context.trace_state, True):
        return False
    return vars(stock).keys() <= vars(LightSpan).keys()


class _SdkSpan(Span):
    """What the SDK makes: its own class for that is abstract."""


def _is_roomy(limits: SpanLimits) -> bool:
    """Say whether no light span can get near *limits*."""
    most = (limits.max_span_attributes, _MOST_ATTRIBUTES), (limits.max_links, _MOST_LINKS)
    return (limits.max_attribute_length, limits.max_span_attribute_length) == (None, None) and all(
        limit is None or limit >= number for limit, number in most
    )
