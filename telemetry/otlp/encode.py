"""Records as OTLP bytes, each encoded once.

The SDK's encoder makes a protobuf object for every attribute of every span. This one writes the
bytes of a span directly, and caches the parts that repeat from span to span: the keys of
attributes, and short values if there are few. A request is made from the bytes of its spans.

The bytes of a span equal those of the SDK's encoder, with fields in ascending order. But a value of
a type that OTLP lacks is empty, and a character that is not Unicode is a question mark.

Format: opentelemetry-proto 1.x, ``trace.proto``, ``logs.proto``, ``common.proto``,
``resource.proto``; and Protocol Buffers, "Encoding".
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from struct import Struct
from typing import Any

from ..tracing.interpret import (
    Interpretation,
    log_attributes,
    severity_number,
    severity_text,
)
from ..tracing.record import Record, RecordedEvent, RecordedLink, RecordedLog, SpanTemplate
from ..tracing.scope import Scope

#: The most cached keys, and cached values of each. Ids never repeat: they fill their cache, and
#: are then encoded each time.
_MAX_KEYS = 256
_MAX_VALUES = 64

#: The most bytes of a cached attribute.
_MAX_CACHED = 160

#: Values nested deeper than this are left out.
_MAX_DEPTH = 32

_double = Struct("<d").pack
_fixed64 = Struct("<Q").pack
_fixed32 = Struct("<I").pack
_id = Struct(">Q").pack

# A tag is the number of a field times 8 plus its wire type: 0 is a varint, 1 eight bytes, 2 a
# length and that many bytes, 5 four bytes.
_FIRST, _SECOND, _THIRD, _FOURTH = b"\x0a", b"\x12", b"\x1a", b"\x22"  # wire type 2
_NAME, _ATTRIBUTE, _EVENT, _LINK, _STATUS = b"\x2a", b"\x4a", b"\x5a", b"\x6a", b"\x7a"  # of Span

#: ``SpanFlags``: bit 8 means that bit 9 is known, and bit 9 that the context is remote.
_LOCAL, _REMOTE = b"\x00\x01\x00\x00", b"\x00\x03\x00\x00"

_ids = Struct(">2s16s2sQ").pack
_parent = Struct(">2sQ").pack
_times = Struct("<cQcQ").pack


def encode_span(template: SpanTemplate, record: Record, interpretation: Interpretation) -> bytes:
    """Return *record*, with its *interpretation*, as one ``Span`` message."""
    parts = [_ids(b"\x0a\x10", record.trace_id, b"\x12\x08", record.span_id)]
    add = parts.append
    if record.trace_state:
        add(_text(_THIRD, record.trace_state))
    if record.parent_id:
        add(_parent(b"\x22\x08", record.parent_id))
    add(_names[interpretation.name])
    add(b"\x30" + _varint(template.kind + 1))  # OTLP has UNSPECIFIED before the first kind
    add(_times(b"\x39", record.start_time, b"\x41", record.end_time))
    _add_attributes(parts, template, record, interpretation)
    dropped_attributes, dropped_events, dropped_links = record.dropped
    if dropped_attributes:
        add(b"\x50" + _varint(dropped_attributes))
    for event in record.events or ():
        add(_field(_EVENT, _event(event)))
    if dropped_events:
        add(b"\x60" + _varint(dropped_events))
    for link in interpretation.links:
        add(_field(_LINK, _link(link)))
    if dropped_links:
        add(b"\x70" + _varint(dropped_links))
    add(_status(record) if record.status else b"\x7a\x00")
    add(b"\x85\x01" + (_REMOTE if record.parent_is_remote else _LOCAL))
    return b"".join(parts)


def encode_log(log: RecordedLog) -> bytes:
    """Return *log* as one ``LogRecord`` message."""
    parts = [b"\x09" + _fixed64(log.time)]
    add = parts.append
    if number := severity_number(log.level):
        add(b"\x10" + _varint(number))
    add(_text(_THIRD, severity_text(log.level_name)))
    add(_field(b"\x2a", _value(log.body)))
    add(_attributes(b"\x32", log_attributes(log)))
    if log.dropped_attributes:
        add(b"\x38" + _varint(log.dropped_attributes))
    if log.flags:
        add(b"\x45" + _fixed32(log.flags))
    if log.span_id:
        add(_field(b"\x4a", log.trace_id) + b"\x52\x08" + _id(log.span_id))
    add(b"\x59" + _fixed64(log.time))
    return b"".join(parts)


def encode_resource_spans(attributes: Mapping[str, Any], schema_url: str) -> bytes:
    """Return a ``ResourceSpans`` of a resource with *attributes*, without spans.

    The bytes are also a valid ``ResourceLogs``, and those of a ``ScopeSpans`` a ``ScopeLogs``.
    """
    return _field(_FIRST, _attributes(_FIRST, attributes)) + _text(_THIRD, schema_url)


def encode_scope_spans(scope: Scope) -> bytes:
    """Return a ``ScopeSpans`` of *scope*, without spans."""
    encoded = _text(_FIRST, scope.name) + _text(_SECOND, scope.version)
    encoded += _attributes(_THIRD, scope.attributes)
    return _field(_FIRST, encoded) + _text(_THIRD, scope.schema_url)


def encode_request(spans: Iterable[tuple[bytes, bytes, bytes]]) -> bytes:
    """Return the ``ExportTraceServiceRequest`` of *spans*.

    Each is a ``ResourceSpans`` and a ``ScopeSpans`` without spans, and a ``Span``. The fields of an
    ``ExportLogsServiceRequest`` have the same numbers, so ``LogRecord``s work too.
    """
    scopes: dict[tuple[bytes, bytes], list[bytes]] = defaultdict(list)
    for resource, scope, span in spans:
        scopes[resource, scope].append(_field(_SECOND, span))
    resources: dict[bytes, list[bytes]] = defaultdict(list)
    for (resource, scope), encoded in scopes.items():
        resources[resource].append(_field(_SECOND, scope + b"".join(encoded)))
    return b"".join(
        _field(_FIRST, resource + b"".join(encoded)) for resource, encoded in resources.items()
    )


def _field(tag: bytes, message: bytes) -> bytes:
    return tag + _varint(len(message)) + message


def _add_attributes(
    parts: list[bytes], template: SpanTemplate, record: Record, interpretation: Interpretation
) -> None:
    added = record.attributes or {}
    if record.limited or not template.static_attributes.keys().isdisjoint(added):
        attributes = interpretation.attributes(template, record)
    else:
        parts.append(_static_attributes(template))
        attributes = {**interpretation.facts, **added} if added else interpretation.facts
    add = parts.append
    for key, value in attributes.items():
        kind = type(value)
        if kind is str:
            add(_strings[key][value])
        elif kind is float:
            add(_doubles[key] + _double(value))
        else:
            add(_attribute(_ATTRIBUTE, key, value))


@lru_cache(maxsize=1024)
def _static_attributes(template: SpanTemplate) -> bytes:
    return _attributes(_ATTRIBUTE, template.static_attributes)


def _event(event: RecordedEvent) -> bytes:
    time = b"\x09" + _fixed64(event.time) if event.time else b""
    attributes = _attributes(_THIRD, event.attributes)
    dropped = event.dropped_attributes
    counted = b"\x20" + _varint(dropped) if dropped else b""
    return time + _text(_SECOND, event.name) + attributes + counted


def _link(link: RecordedLink) -> bytes:
    ids = _ids(b"\x0a\x10", link.trace_id, b"\x12\x08", link.span_id)
    state = _text(_THIRD, link.trace_state)
    attributes = _attributes(_FOURTH, link.attributes)
    dropped = link.dropped_attributes
    counted = b"\x28" + _varint(dropped) if dropped else b""
    return ids + state + attributes + counted + b"\x35" + (_REMOTE if link.is_remote else _LOCAL)


def _status(record: Record) -> bytes:
    description = _text(_SECOND, record.status_description)
    return _field(_STATUS, description + b"\x18" + _varint(record.status))


def _attributes(tag: bytes, attributes: Mapping[str, Any]) -> bytes:
    return b"".join([_attribute(tag, key, value) for key, value in attributes.items()])


def _attribute(tag: bytes, key: str, value: Any) -> bytes:
    return _field(tag, _key_value(key, _value(value)))


def _key_value(key: str, value: bytes) -> bytes:
    return _text(_FIRST, key) + _field(_SECOND, value)


def _value(value: Any, depth: int = 0) -> bytes:
    """Return *value* as an ``AnyValue``."""
    if isinstance(value, str):
        return _field(_FIRST, value.encode("utf-8", "replace"))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            return _field(_FIRST, b"%d" % value)  # as a string, as in ``limits.clean``
        return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if isinstance(value, float):
        return b"\x21" + _double(value)
    if isinstance(value, bytes):
        return _field(b"\x3a", value)
    if depth == _MAX_DEPTH:
        return b""
    if isinstance(value, (tuple, list)):
        return _field(b"\x2a", _messages(_value(item, depth + 1) for item in value))
    if isinstance(value, dict):
        pairs = [_key_value(str(key), _value(item, depth + 1)) for key, item in value.items()]
        return _field(b"\x32", _messages(pairs))
    return b""


def _messages(messages: Iterable[bytes]) -> bytes:
    return b"".join([_field(_FIRST, message) for message in messages])


def _text(tag: bytes, text: str | None) -> bytes:
    """Return a field, or nothing if *text* is empty."""
    return _field(tag, text.encode("utf-8", "replace")) if text else b""


def _varint(number: int) -> bytes:
    if number < 0x80:
        return _ONE_BYTE[number]
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_ONE_BYTE = [bytes((number,)) for number in range(0x80)]


class _Cache(dict[Any, Any]):
    """Caches the result of *make* for the first *most* keys."""

    def __init__(self, make: Callable[[Any], Any], most: int) -> None:
        self._make = make
        self._most = most

    def __missing__(self, key: Any) -> Any:
        made = self._make(key)
        if len(self) < self._most and not (isinstance(made, bytes) and len(made) > _MAX_CACHED):
            self[key] = made
        return made


def _strings_of(key: str) -> _Cache:
    """Return a cache of the attributes with *key* and a string, by the string."""
    # The bytes before the string depend only on its length, and all ids have the same length.
    before = _Cache(
        lambda size: _attribute(_ATTRIBUTE, key, "x" * size)[: -size or None], _MAX_VALUES
    )

    def make(value: str) -> bytes:
        data = value.encode("utf-8", "replace")
        encoded: bytes = before[len(data)] + data
        return encoded

    return _Cache(make, _MAX_VALUES)


_strings = _Cache(_strings_of, _MAX_KEYS)
_doubles = _Cache(lambda key: _attribute(_ATTRIBUTE, key, 0.0)[:-8], _MAX_KEYS)
_names = _Cache(lambda name: _text(_NAME, name), _MAX_KEYS)
