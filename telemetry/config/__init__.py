"""The configuration: OpenTelemetry's environment variables, read and checked.

``exporter`` reads the settings of the exporter, and ``settings`` all others. ``sdk`` imports
OpenTelemetry's SDK. Nothing here imports another part of this library.
"""
