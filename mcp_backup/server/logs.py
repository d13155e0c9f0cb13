"""Where a serving process logs to."""

import logging
import sys


def log_to_stderr() -> None:
    """Log to standard error, one event a line; a process that has configured logging keeps it.

    Called before the SDK's server is made, which would set up its own.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
