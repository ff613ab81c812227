"""From a process to the collector: records wait on disk or in memory, and are sent over OTLP.

``spool`` is the writer's side of the disk, ``sender`` the process that delivers from it. ``memory``
does both in one process.
"""
