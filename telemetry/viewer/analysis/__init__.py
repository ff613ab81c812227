"""Pure functions over the spans of one trace; nothing here reads a database or a socket."""
