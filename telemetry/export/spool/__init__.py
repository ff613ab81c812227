"""The application's side of the disk: a finished record is appended to a file before anything else.

A process that ends a span appends it to a *segment*, a file that it shares with the processes it
forks. So an application has no channel and no thread that a fork could break, and what it has
written outlives it, however it ends.

``sink`` is what the spans see, ``writer`` appends, ``frames`` is the format of a segment,
``directory`` the place; ``watch`` and ``spawn`` start the sender.
"""
