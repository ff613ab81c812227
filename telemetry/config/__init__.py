"""The configuration: what OpenTelemetry's environment variables say, checked.

``settings`` reads everything but the exporter, which ``exporter`` reads. ``sdk`` imports
OpenTelemetry's SDK. Nothing here imports another part of this library.
"""
