"""The process that delivers: one for each destination and user of a machine.

``segment`` reads the records. ``batch_delivery`` and ``metric_delivery`` make requests of them, and
``transport`` sends one request.
"""
