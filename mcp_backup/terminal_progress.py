"""Progress on stderr, for a terminal that can move its cursor."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from mcp_backup.progress import Listener, nobody
from mcp_backup.terminal import Terminal


@contextmanager
def progress_bars(terminal: Terminal) -> Iterator[Listener]:
    """Show what the listener yielded hears until the block ends; then leave no trace."""
    if not terminal.shows_progress:
        yield nobody
        return
    drawing = import_module("mcp_backup.terminal_bars")  # most commands run where nobody looks
    with drawing.bars_on(terminal) as bars:
        yield drawing.BarListener(bars)
