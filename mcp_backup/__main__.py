"""`python -m mcp_backup`, and the `mcp-backup` script."""

import gc
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from mcp_backup import worker_processes

_FAILED, _INTERRUPTED = 1, 130
_SEALING = ("mcp_backup.repository.sealing",)
_CAPTURING = ("mcp_backup.sources.worker", "mcp_backup.sources.sqlite")
_AHEAD = {  # what the workers of a verb will need, where it has some whatever it finds
    "create": _SEALING + _CAPTURING,
    "restore": _SEALING + _CAPTURING,
    "verify": _SEALING + _CAPTURING,
    "drill": _SEALING + _CAPTURING,
    "check": _SEALING,
    "prune": _SEALING,
    "undo": _CAPTURING,
}
_NO_WORKERS = {"--help", "-h", "incremental", "structure", "--dry-run"}  # or it cannot be known


def main() -> None:
    """Run the program on the process's arguments and exit with its code.

    It is imported here, so that Ctrl-C while it loads is no traceback. What loading makes stays,
    so looking for cycles in it, again and again, is work for nothing; `run` goes on with that.
    """
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it looks for some everywhere
    try:
        begin_workers(sys.argv[1:])
        code: int = import_module("mcp_backup.cli.app").run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("error [interrupted]: stopped before it had begun\n")
        code = _INTERRUPTED
    _end(code)


def begin_workers(words: Sequence[str]) -> None:
    """Have what workers of a verb need loaded by a process beside this one, while it loads."""
    asked = [_AHEAD[word] for word in words[:1] if word in _AHEAD]
    if asked and not _NO_WORKERS.intersection(words):
        worker_processes.begin_ahead(*asked[0])


def _end(code: int) -> NoReturn:
    """End the process as it stands: to take down all that was loaded takes a tenth of a start."""
    worker_processes.end_ahead()
    logging.shutdown()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:  # whoever read the output has gone, and is told nothing
        code = code or _FAILED
    except OSError as error:
        os.write(2, f"error [output]: standard output: {error.strerror}\n".encode())
        code = code or _FAILED
    os._exit(code)


if __name__ == "__main__":
    main()
