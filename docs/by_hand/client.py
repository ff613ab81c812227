import sys

import requests
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)

with trace.get_tracer("client").start_as_current_span("GET", kind=SpanKind.CLIENT):
    headers = {}
    inject(headers)  # {"traceparent": "00-<trace id>-<span id>-03"}
    requests.get(sys.argv[1], headers=headers).raise_for_status()
