"""`python -m mcp_backup`, and the `mcp-backup` script."""

import gc
import sys
from importlib import import_module

_INTERRUPTED = 130


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
    sys.exit(code)


if __name__ == "__main__":
    main()
