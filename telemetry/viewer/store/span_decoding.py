"""Decode stored spans. Most attributes of a trace repeat, so equal ones are decoded once."""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from ...otlp.decode import Attributes, ReceivedSpan, decode_span, decode_value
from .sources import decode_source


@cache
def _with_encoded_attributes() -> Any:
    """Return protobuf's ``Span``, but with each attribute as the bytes of its ``KeyValue``."""
    file = FileDescriptorProto.FromString(trace_pb2.DESCRIPTOR.serialized_pb)
    [span] = [message for message in file.message_type if message.name == "Span"]
    [attributes] = [field for field in span.field if field.name == "attributes"]
    attributes.type = attributes.TYPE_BYTES
    attributes.ClearField("type_name")
    pool = DescriptorPool()
    for used in (common_pb2, resource_pb2):
        pool.AddSerializedFile(used.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(trace_pb2.Span.DESCRIPTOR.full_name))


def decode_spans(stored: Iterable[tuple[bytes, bytes]]) -> Iterator[ReceivedSpan]:
    """Decode stored spans: the protobuf of the source and of the span."""
    # Only for these spans, so that what is cached has a bound.
    source_of, pair_of = cache(decode_source), cache(_decode_pair)

    def attributes_of(encoded: Iterable[bytes]) -> Attributes:
        return dict(map(pair_of, encoded))

    parse = _with_encoded_attributes().FromString
    for source, body in stored:
        yield decode_span(parse(body), *source_of(source), attributes_of)


def _decode_pair(encoded: bytes) -> tuple[str, Any]:
    pair = common_pb2.KeyValue.FromString(encoded)
    return pair.key, pair.value.string_value or decode_value(pair.value)
