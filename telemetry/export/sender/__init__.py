"""The process that delivers: one for each destination and user of a machine.

``segment`` reads, ``batch_delivery`` and ``metric_delivery`` decide what goes out, ``collector`` is
one call and ``backoff`` the time until the next.
"""
