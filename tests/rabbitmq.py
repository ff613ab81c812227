"""A RabbitMQ for the tests, if it is installed."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import free_port
from .processes import Process


@dataclass(frozen=True)
class RabbitMQ:
    """A running server, and the faults that a test can cause."""

    url: str
    process: Process
    env: Mapping[str, str]

    def freeze(self) -> None:
        """Stop all answers until ``thaw``."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def drop_connections(self) -> None:
        """Close every connection, as a restart does."""
        self._control("close_all_connections", "a test wants it")

    @contextmanager
    def out_of_memory(self) -> Iterator[None]:
        """Block publishers, as a server without memory does."""
        self._control("set_vm_memory_high_watermark", "0.0000001")
        try:
            yield
        finally:
            self._control("set_vm_memory_high_watermark", "0.4")

    def _control(self, *argv: str) -> None:
        control = str(Path(self.process.argv[0]).with_name("rabbitmqctl"))
        command = [control, *argv]
        subprocess.run(command, env=self.env, check=True, capture_output=True, timeout=300)


def find_server() -> str | None:
    """Return the script that starts a server as the user who calls it, or None."""
    # Debian's script on the PATH changes to another user, and calls this one.
    debian = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    return str(debian) if debian.exists() else shutil.which("rabbitmq-server")


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    server = find_server()
    if server is None:
        pytest.skip("RabbitMQ is not installed")
    directory = tmp_path_factory.mktemp("rabbitmq")
    port, epmd_port, distribution_port = free_port(), free_port(), free_port()
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd_port),
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_LOG_BASE": str(directory),
        "RABBITMQ_MNESIA_BASE": str(directory),
        "RABBITMQ_NODENAME": f"queuehop-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
    }
    # Erlang's name service: started here, it ends here. The server would leave one behind.
    names = Process(["epmd", "-address", "127.0.0.1", "-port", str(epmd_port)], env, directory)
    process = Process([server], env, directory)
    try:
        process.wait_for_line("Server startup complete", timeout=60)
        yield RabbitMQ(f"amqp://guest:guest@127.0.0.1:{port}//", process, env)
    finally:
        process.kill()
        names.kill()
