"""Finished spans as OTLP bytes, each encoded once.

The SDK's encoder makes a protobuf object for every attribute of every span and only then bytes of
them. Here a span becomes bytes at once, and what repeats from span to span (an attribute's key, and
its value too if it is short and one of few) is not encoded again. So many spans' bytes, of several
processes even, go together into a request without being decoded.

The bytes are those of the SDK's encoder, field for field in ascending order. What this one does not
know (lone surrogates, integers beyond 64 bits, subclasses, values nested deeply) is left to that
one: ``_encode_span_slowly``.

Format: opentelemetry-proto 1.x, ``trace.proto``, ``common.proto``, ``resource.proto``; and Protocol
Buffers, "Encoding".
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from struct import Struct
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    DEFAULT_TRACE_STATE,
    INVALID_SPAN_CONTEXT,
    Link,
    SpanContext,
    SpanKind,
    Status,
    TraceState,
)

__all__ = [
    "before_string",
    "encode_attributes",
    "encode_child",
    "encode_hop",
    "encode_kind",
    "encode_name",
    "encode_resource",
    "encode_scope",
    "encode_span",
    "export_request",
    "field",
    "resource_spans",
    "scope_spans",
    "three_doubles",
]

#: So many keys, and so many values of each, are kept; ids, which never repeat, fill theirs and
#: are encoded anew from then on.
_MAX_KEYS = 256
_MAX_VALUES = 64

#: The longest attribute that is kept, in bytes.
_MAX_KEPT = 160

#: Values nested deeper than this are left to the SDK's encoder, which knows protobuf's own limit.
_MAX_DEPTH = 8

_double = Struct("<d").pack
_fixed64 = Struct("<Q").pack

# A tag is the number of a field times 8 plus its wire type: 0 varint, 1 eight bytes, 2 a length and
# so many bytes, 5 four bytes.
_FIRST, _SECOND, _THIRD, _FOURTH = b"\x0a", b"\x12", b"\x1a", b"\x22"  # wire type 2
_ATTRIBUTE, _EVENT, _LINK, _STATUS = b"\x4a", b"\x5a", b"\x6a", b"\x7a"  # of Span, wire type 2

_KINDS = {kind: bytes((0x30, kind.value + 1)) for kind in SpanKind}
_NO_STATUS = _STATUS + b"\x00"

#: ``SpanFlags``: bit 8 says that bit 9 is known, bit 9 that the context came from elsewhere.
_LOCAL, _REMOTE = b"\x00\x01\x00\x00", b"\x00\x03\x00\x00"

_LINK_LOCAL, _LINK_REMOTE = b"\x35" + _LOCAL, b"\x35" + _REMOTE

#: How a span ends that has no status.
_END_LOCAL, _END_REMOTE = _NO_STATUS + b"\x85\x01" + _LOCAL, _NO_STATUS + b"\x85\x01" + _REMOTE

_times = Struct("<cQcQ").pack
_ids = Struct(">2sQQ2sQ").pack
_parent = Struct(">2sQ").pack
_link_ids = Struct(">4sQQ2sQ5s").pack
_LOW = (1 << 64) - 1
_two_bytes = Struct("BB").pack


def encode_span(span: ReadableSpan) -> bytes:
    """Return *span* as one ``Span`` message.

    Raises what the SDK's encoder raises, for a span that it cannot encode either.
    """
    try:
        return _encode_span(span)
    except Exception:
        return _encode_span_slowly(span)


def encode_hop(
    context: SpanContext,
    parent: SpanContext | None,
    name_and_kind: bytes,
    start_time: int,
    end_time: int,
    said: bytes,
    attributes: Mapping[str, Any],
    links: Sequence[SpanContext],
) -> bytes:
    """Return one ``Span`` message of parts that are encoded already, and of those that are not.

    *said* are encoded attributes that come before *attributes*. No events, no status. Raises for
    attributes and times that the SDK's encoder must be asked about.
    """
    if not (start_time and end_time):
        raise ValueError("a time of 0 is left out")
    trace_id, span_id, _, _, state, _ = context
    ids = _ids(b"\x0a\x10", trace_id >> 64, trace_id & _LOW, b"\x12\x08", span_id)
    if state is not DEFAULT_TRACE_STATE and state:
        ids += _state(state)
    end = _END_LOCAL
    if parent is not None:
        _, span_id, is_remote, _, _, _ = parent
        ids += _parent(b"\x22\x08", span_id)
        if is_remote:
            end = _END_REMOTE
    parts = [ids, name_and_kind, _times(b"\x39", start_time, b"\x41", end_time), said]
    if attributes:
        _add_attributes(parts, attributes)
    for trace_id, span_id, is_remote, _, _, _ in links:
        flags = _LINK_REMOTE if is_remote else _LINK_LOCAL
        high, low = trace_id >> 64, trace_id & _LOW
        parts.append(_link_ids(b"\x6a\x21\x0a\x10", high, low, b"\x12\x08", span_id, flags))
    parts.append(end)
    return b"".join(parts)


def encode_child(
    trace_id: bytes,
    span_id: bytes,
    parent_id: bytes,
    name_and_kind: bytes,
    start_time: int,
    end_time: int,
    said: bytes,
) -> bytes:
    """Return what ``encode_hop`` does, for a span under a remote one to which it links."""
    times = _times(b"\x39", start_time, b"\x41", end_time)
    return b"\x0a\x10%b\x12\x08%b\x22\x08%b%b%b%b\x6a\x21\x0a\x10%b\x12\x08%b%b%b" % (
        *(trace_id, span_id, parent_id, name_and_kind, times, said),
        *(trace_id, parent_id, _LINK_REMOTE, _END_REMOTE),
    )


def encode_name(name: str) -> bytes:
    """Return the field of ``Span`` that holds its *name*."""
    return _names[name]  # type: ignore[no-any-return]


def encode_kind(kind: SpanKind) -> bytes:
    """Return the field of ``Span`` that holds its *kind*."""
    return _KINDS[kind]


def encode_attributes(attributes: Mapping[str, Any]) -> bytes:
    """Return the fields of ``Span`` that hold *attributes*."""
    parts: list[bytes] = []
    _add_attributes(parts, attributes)
    return b"".join(parts)


def before_string(key: str) -> Mapping[int, bytes]:
    """Return, by the size of a string, what comes before it in an attribute of ``Span`` with *key*.

    Ids seldom repeat but are of one length, so that the rest of them is made once.
    """
    return _Kept(lambda size: _attribute(_ATTRIBUTE, key, "x" * size)[: -size or None], _MAX_VALUES)


def three_doubles(*keys: str) -> Callable[[Sequence[float]], bytes]:
    """Return what encodes three attributes of ``Span``, which are doubles, by their *keys*."""
    before = [_double_of(key) for key in keys]
    pack = Struct("<" + "".join(f"{len(each)}sd" for each in before)).pack
    first, second, third = before

    def encode(values: Sequence[float]) -> bytes:
        one, two, three = values
        return pack(first, one, second, two, third, three)

    return encode


def encode_resource(resource: Resource) -> bytes:
    """Return *resource* as one ``Resource`` message."""
    try:
        return _attributes(_FIRST, resource.attributes)
    except Exception:
        return _encode_resource_slowly(resource)


def encode_scope(scope: InstrumentationScope | None) -> bytes:
    """Return *scope* as one ``InstrumentationScope`` message, an empty one for None."""
    if scope is None:
        return b""
    try:
        name, version = _text(_FIRST, scope.name), _text(_SECOND, scope.version)
        return name + version + _attributes(_THIRD, scope.attributes)
    except Exception:
        return _encode_scope_slowly(scope)


def scope_spans(scope: bytes, schema_url: str, spans: Sequence[bytes]) -> bytes:
    """Return one ``ScopeSpans`` message of encoded *spans* of an encoded *scope*."""
    return field(_FIRST, scope) + _messages(spans) + _text(_THIRD, schema_url)


def resource_spans(resource: bytes, schema_url: str, scopes: Sequence[bytes]) -> bytes:
    """Return one ``ResourceSpans`` message of ``ScopeSpans`` of an encoded *resource*."""
    return field(_FIRST, resource) + _messages(scopes) + _text(_THIRD, schema_url)


def export_request(resources: Sequence[bytes]) -> bytes:
    """Return the ``ExportTraceServiceRequest`` of several ``ResourceSpans``."""
    return b"".join([field(_FIRST, resource) for resource in resources])


def _encode_span(span: ReadableSpan) -> bytes:
    own, parent, status = span.context, span.parent, span.status
    parts = [
        b"\x0a\x10"
        + own.trace_id.to_bytes(16, "big")
        + b"\x12\x08"
        + own.span_id.to_bytes(8, "big"),
    ]
    add = parts.append
    if own.trace_state:
        add(_state(own.trace_state))
    if parent:
        add(b"\x22\x08" + parent.span_id.to_bytes(8, "big"))
    add(_names[span.name])
    add(_KINDS[span.kind])
    if span.start_time:
        add(b"\x39" + _fixed64(span.start_time))
    if span.end_time:
        add(b"\x41" + _fixed64(span.end_time))
    _add_attributes(parts, _copied(span.attributes))
    if dropped := span.dropped_attributes:
        add(b"\x50" + _uint32(dropped))
    if events := span.events:
        parts += [field(_EVENT, _event(event)) for event in events]
    if dropped := span.dropped_events:
        add(b"\x60" + _uint32(dropped))
    if links := span.links:
        parts += [field(_LINK, _link(link)) for link in links]
    if dropped := span.dropped_links:
        add(b"\x70" + _uint32(dropped))
    if status is not None:
        add(_status(status))
    add(b"\x85\x01" + _flags(parent))
    return b"".join(parts)


def _state(state: TraceState) -> bytes:
    return _text(_THIRD, ",".join([f"{key}={value}" for key, value in state.items()]))


def _add_attributes(parts: list[bytes], attributes: Mapping[str, Any]) -> None:
    add = parts.append
    for key, value in attributes.items():
        kind = type(value)
        if kind is str:
            add(_strings[key][value])
        elif kind is float:
            add(_doubles[key] + _double(value))
        elif kind is int:
            add(_ints[key][value])
        elif kind is bool:
            add(_bools[key][value])
        else:
            add(_attribute(_ATTRIBUTE, key, value))


def _event(event: Event) -> bytes:
    time = b"\x09" + _fixed64(event.timestamp) if event.timestamp else b""
    attributes = _attributes(_THIRD, event.attributes)
    dropped = event.dropped_attributes
    counted = b"\x20" + _uint32(dropped) if dropped else b""
    return time + _text(_SECOND, event.name) + attributes + counted


def _link(link: Link) -> bytes:
    context = link.context
    ids = context.trace_id.to_bytes(16, "big") + b"\x12\x08" + context.span_id.to_bytes(8, "big")
    attributes = _attributes(_FOURTH, link.attributes)
    dropped = link.dropped_attributes
    counted = b"\x28" + _uint32(dropped) if dropped else b""
    return b"\x0a\x10" + ids + attributes + counted + b"\x35" + _flags(context)


def _status(status: Status) -> bytes:
    if not (code := status.status_code.value):
        return _NO_STATUS
    return field(_STATUS, _text(_SECOND, status.description) + b"\x18" + _varint(code))


def _flags(context: SpanContext | None) -> bytes:
    return _REMOTE if context and context.is_remote else _LOCAL


def _attributes(tag: bytes, attributes: Mapping[str, Any] | None) -> bytes:
    if not attributes:
        return b""
    return b"".join([_attribute(tag, key, value) for key, value in _copied(attributes).items()])


def _copied(attributes: Any) -> dict[str, Any]:
    # The SDK's mapping takes a lock and a call for each item; its copy is a dict.
    return attributes.copy()  # type: ignore[no-any-return]


def _attribute(tag: bytes, key: str, value: Any) -> bytes:
    return field(tag, _key_value(key, _value(value)))


def _key_value(key: str, value: bytes) -> bytes:
    return _text(_FIRST, key) + field(_SECOND, value)


def _value(value: Any, depth: int = 0) -> bytes:
    """Return *value* as an ``AnyValue``."""
    kind = type(value)
    if kind is str:
        return field(_FIRST, value.encode())
    if kind is bool:
        return b"\x10\x01" if value else b"\x10\x00"
    if kind is int:
        return b"\x18" + _int64(value)
    if kind is float:
        return b"\x21" + _double(value)
    if value is None:
        return b""
    if kind is bytes:
        return field(b"\x3a", value)
    if depth == _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if kind is tuple or kind is list:
        return field(b"\x2a", _messages_first(_value(item, depth + 1) for item in value))
    if kind is dict:
        pairs = [_key_value(key, _value(item, depth + 1)) for key, item in value.items()]
        return field(b"\x32", _messages_first(pairs))
    raise TypeError(f"{kind} is left to the SDK's encoder")


def field(tag: bytes, message: bytes) -> bytes:
    return tag + _varint(len(message)) + message


def _messages(messages: Iterable[bytes]) -> bytes:
    return b"".join([field(_SECOND, message) for message in messages])


def _messages_first(messages: Iterable[bytes]) -> bytes:
    return b"".join([field(_FIRST, message) for message in messages])


def _text(tag: bytes, text: str | None) -> bytes:
    """Return a field that is left out where it is empty."""
    return field(tag, text.encode()) if text else b""


def _varint(number: int) -> bytes:
    if number < 0x80:
        return _ONE_BYTE[number]
    if number < 0x4000:  # most spans
        return _two_bytes(number & 0x7F | 0x80, number >> 7)
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_ONE_BYTE = [bytes((number,)) for number in range(0x80)]


def _int64(number: int) -> bytes:
    if not -(1 << 63) <= number < 1 << 63:
        raise OverflowError("an integer of more than 64 bits")
    return _varint(number & 0xFFFF_FFFF_FFFF_FFFF)


def _uint32(number: int) -> bytes:
    if not 0 <= number < 1 << 32:
        raise OverflowError("a count of more than 32 bits")
    return _varint(number)


class _Kept(dict[Any, Any]):
    """What was made once for a key, for the first *most* of them; the others are made anew."""

    __slots__ = ("_make", "_most")

    def __init__(self, make: Callable[[Any], Any], most: int) -> None:
        self._make = make
        self._most = most

    def __missing__(self, key: Any) -> Any:
        made = self._make(key)
        if len(self) < self._most and not (isinstance(made, bytes) and len(made) > _MAX_KEPT):
            self[key] = made
        return made


def _values_of(key: str) -> _Kept:
    """Return the attributes of spans that have *key*, by their values, which are of one type."""

    def make(value: Any) -> bytes:
        return _attribute(_ATTRIBUTE, key, value)

    return _Kept(make, _MAX_VALUES)


def _strings_of(key: str) -> _Kept:
    """Return the attributes of spans that have *key* and a string, by the string."""
    before = before_string(key)

    def make(value: str) -> bytes:
        data = value.encode()
        return before[len(data)] + data

    return _Kept(make, _MAX_VALUES)


def _double_of(key: str) -> bytes:
    """Return all of an attribute of a span but its value, which is a double."""
    return _attribute(_ATTRIBUTE, key, 0.0)[:-8]


# One for each type: 1, 1.0 and True are the same key of a dict.
_strings = _Kept(_strings_of, _MAX_KEYS)
_ints = _Kept(_values_of, _MAX_KEYS)
_bools = _Kept(_values_of, _MAX_KEYS)
_doubles = _Kept(_double_of, _MAX_KEYS)
_names = _Kept(lambda name: _text(b"\x2a", name), _MAX_KEYS)


def _encode_span_slowly(span: ReadableSpan) -> bytes:
    return _stock(span).scope_spans[0].spans[0].SerializeToString()  # type: ignore[no-any-return]


def _encode_resource_slowly(resource: Resource) -> bytes:
    span = ReadableSpan("", INVALID_SPAN_CONTEXT, resource=resource)
    return _stock(span).resource.SerializeToString()  # type: ignore[no-any-return]


def _encode_scope_slowly(scope: InstrumentationScope) -> bytes:
    span = ReadableSpan("", INVALID_SPAN_CONTEXT, instrumentation_scope=scope)
    return _stock(span).scope_spans[0].scope.SerializeToString()  # type: ignore[no-any-return]


def _stock(span: ReadableSpan) -> Any:
    """Return the ``ResourceSpans`` that the SDK's encoder makes of *span*."""
    # Loaded by those who need it: most processes never do.
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    return encode_spans([span]).resource_spans[0]
