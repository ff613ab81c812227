"""The configuration: OpenTelemetry's environment variables, read and checked.

``settings`` reads everything but the exporter, which ``exporter`` reads. ``sdk`` imports
OpenTelemetry's SDK. Nothing here imports another part of this library.
"""
