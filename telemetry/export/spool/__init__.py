"""The application's side of the disk: the process appends each finished record to a file.

The file, a *segment*, is shared by a process and the processes that it forks. So the application
has no connection and no thread that a fork could break, and its records survive it, however it
ends.

``disk_sink`` takes the records, ``writer`` appends them, and ``frames`` is the format of a segment.
``directory`` has the segments of one destination, and ``sender_files`` the files that it shares
with the sender. ``watch`` and ``spawn`` start the sender. ``reader`` reads what a tree has written.
"""
