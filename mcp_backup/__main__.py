"""`python -m mcp_backup`, and the `mcp-backup` script."""

import gc
import logging
import os
import sys
from importlib import import_module
from typing import NoReturn

_FAILED, _INTERRUPTED = 1, 130


def main() -> None:
    """Run the program on the process's arguments and exit with its code.

    It is imported here, so that Ctrl-C while it loads is no traceback. What loading makes stays,
    so looking for cycles in it, again and again, is work for nothing; `run` goes on with that.
    """
    gc.disable()
    try:
        code: int = import_module("mcp_backup.cli.app").run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("error [interrupted]: stopped before it had begun\n")
        code = _INTERRUPTED
    _end(code)


def _end(code: int) -> NoReturn:
    """End the process as it stands: to take down all that was loaded takes a tenth of a start."""
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
