"""The daemon, as a process of its own."""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from tests.server.conftest import Machine

PATIENCE = 60.0  # seconds; only a failure waits that long


class Daemon:
    """A daemon on a free port, at `address`."""

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        self.address = address
        self._process = process
        self._told = False

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Tell it to stop, once."""
        if not self._told:
            self._process.send_signal(signal.SIGTERM)
        self._told = True


@contextmanager
def daemon(machine: Machine) -> Iterator[Daemon]:
    """Run a daemon; it must end well when it is told to stop."""
    with subprocess.Popen(
        machine.command("serve", "--http", "--port", "0"), stderr=subprocess.PIPE
    ) as process:
        try:
            found = (re.search(rb"serving at (.*)/mcp", line) for line in pipe(process.stderr))
            daemon = Daemon(process, next(match[1].decode() for match in found if match))
            yield daemon
            daemon.stop()
            pipe(process.stderr).read()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
