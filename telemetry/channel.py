"""A gRPC channel to the collector, as the settings say."""

import grpc

from .settings import Otlp

__all__ = ["compression", "credentials", "hold", "open_channel"]


def open_channel(target: Otlp, options: tuple[tuple[str, int], ...] = ()) -> grpc.Channel:
    """Open a channel to *target*. gRPC shares one connection between those to one address."""
    tls = credentials(target)
    if tls is None:
        return grpc.insecure_channel(target.endpoint, options, compression(target))
    return grpc.secure_channel(target.endpoint, tls, options, compression(target))


def credentials(target: Otlp) -> grpc.ChannelCredentials | None:
    """Return what TLS to *target* needs; None where it is plain text."""
    if target.insecure:
        return None
    return grpc.ssl_channel_credentials(
        target.certificate, target.client_key, target.client_certificate
    )


def compression(target: Otlp) -> grpc.Compression:
    """Return how what goes to *target* is compressed."""
    return grpc.Compression.Gzip if target.gzip else grpc.Compression.NoCompression


def hold(target: Otlp) -> grpc.Channel:
    """Open a channel that is never used: while there is one, gRPC does not end itself.

    It would once its last channel is closed, in a thread of its own and under a lock: a child that
    was forked in this moment waited for the lock for ever, 11 of 360. While gRPC is up its own fork
    support sees to its threads.
    """
    return open_channel(target)
