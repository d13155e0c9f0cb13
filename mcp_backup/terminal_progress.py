"""Progress bars on stderr, one per stage and subject, for a terminal that can move its cursor."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from mcp_backup.progress import Listener, Progress, nobody
from mcp_backup.terminal import Terminal


@contextmanager
def progress_bars(terminal: Terminal) -> Iterator[Listener]:
    """Show what the listener yielded hears until the block ends; then leave no trace."""
    if not terminal.shows_progress:
        yield nobody
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeElapsedColumn(),
    )
    console = Console(file=terminal.err)
    with Bars(*columns, console=console, transient=True) as bars:
        yield _Listener(bars)


class _Listener:
    """Turns reports into bars."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[tuple[str, str], TaskID] = {}

    async def __call__(self, progress: Progress) -> None:
        key = (progress.stage, progress.subject)
        total = progress.total or None
        if key not in self._tasks:
            label = f"{progress.stage} {progress.subject}".strip()
            self._tasks[key] = self._bars.add_task(label, total=total)
        self._bars.update(self._tasks[key], completed=progress.done, total=total)
