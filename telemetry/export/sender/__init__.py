"""The deliveries of records, by a process for each destination and user of a machine.

``MemorySink`` uses the same deliveries in the application.

``segment`` reads the records. ``batch_delivery`` and ``metric_delivery`` make requests of them, and
``transport`` sends one request.
"""
