"""OTLP: spans as bytes, spans out of bytes, and the servers that receive them."""
