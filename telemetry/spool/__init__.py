"""Durable export: spans and measurements go to a file first, and from there over OTLP/gRPC.

A process that ends a span appends it to a *segment*, a file that it shares with the processes it
forks. Another process, the *sender*, one for each destination and user of a machine, reads the
segments and delivers what is in them. So an application holds no channel and no thread that a fork
could break, and what it has written outlives it, however it ends.

``frames`` is the format of a segment, ``place`` where they are, ``writer`` the application's side,
``sender`` the other; ``processor`` is what OpenTelemetry's SDK and the hops see of it.
"""
