"""A gRPC channel to the collector, by the settings."""

import grpc

from ..config.exporter import Otlp

__all__ = ["compression", "credentials", "hold", "open_channel"]


def open_channel(target: Otlp, options: tuple[tuple[str, int], ...] = ()) -> grpc.Channel:
    """Open a channel to *target*. gRPC shares one connection between those to one address."""
    tls = credentials(target)
    if tls is None:
        return grpc.insecure_channel(target.endpoint, options, compression(target))
    return grpc.secure_channel(target.endpoint, tls, options, compression(target))


def credentials(target: Otlp) -> grpc.ChannelCredentials | None:
    """Return the TLS credentials for *target*, None where the connection is plain text."""
    if target.insecure:
        return None
    return grpc.ssl_channel_credentials(
        target.certificate, target.client_key, target.client_certificate
    )


def compression(target: Otlp) -> grpc.Compression:
    """Return how requests to *target* are compressed."""
    return grpc.Compression.Gzip if target.gzip else grpc.Compression.NoCompression


def hold(target: Otlp) -> grpc.Channel:
    """Open a channel that is never used. While it is open, gRPC does not shut itself down.

    gRPC shuts down when its last channel is closed, in a thread of its own and under a lock. Of
    children that were forked at that moment, 11 of 360 waited for the lock for ever. While gRPC is
    up, its own fork support takes its threads across a fork.
    """
    return open_channel(target)
