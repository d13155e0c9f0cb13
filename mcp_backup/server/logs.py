"""Where a serving process logs to."""

import logging
import sys

from mcp_backup.server.wording import readable


def log_to_stderr() -> None:
    """Log to standard error, one event a line; a process that has configured logging keeps it.

    Called before the SDK's server is made, which would set up its own.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)


class _OneLine(logging.Formatter):
    """One event a line, whatever names of files and sources are in it; tracebacks follow."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = readable(record.message)
        return super().formatMessage(record)
