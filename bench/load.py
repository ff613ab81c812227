"""Asks for a page as fast as it is answered: ``python -m bench.load PORT COUNT WARM CONNECTIONS``.

It does next to nothing itself, so that the server is what is measured. Prints one line of JSON.
"""

import json
import socket
import sys
import threading
import time

REQUEST = b"GET /ping HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def main(port: int, count: int, warm: int, connections: int) -> None:
    """Ask *count* times over so many connections, after *warm* times that do not count."""
    _ask(port, warm, connections)
    began = time.perf_counter()
    seconds = sorted(_ask(port, count, connections))
    took = time.perf_counter() - began
    line = {"rate": len(seconds) / took, "p50": seconds[len(seconds) // 2]}
    print(json.dumps({**line, "p99": seconds[int(len(seconds) * 0.99)]}))


def _ask(port: int, count: int, connections: int) -> list[float]:
    seconds: list[float] = []

    def ask() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            for _ in range(count // connections):
                began = time.perf_counter()
                connection.sendall(REQUEST)
                _read_answer(connection)
                seconds.append(time.perf_counter() - began)

    threads = [threading.Thread(target=ask) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(seconds) != count // connections * connections:
        raise SystemExit("a connection was closed, or an answer was not 202")
    return seconds


def _read_answer(connection: socket.socket) -> None:
    answer = b""
    while b"\r\n\r\n" not in answer:
        if not (part := connection.recv(4096)):
            raise ConnectionError("closed")
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 202"):
        raise ValueError(head.decode())
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(4096)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
