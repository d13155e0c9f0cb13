"""Progress bars: one per stage and subject, drawn by rich. Loaded only where bars are shown."""

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from mcp_backup.progress import Progress
from mcp_backup.terminal import Terminal


def bars_on(terminal: Terminal) -> Bars:
    """Return bars for a terminal that can move its cursor; they show while entered."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeElapsedColumn(),
    )
    return Bars(*columns, console=Console(file=terminal.err), transient=True)


class BarListener:
    """Turns reports into bars."""

    def __init__(self, bars: Bars) -> None:
        """Draw with `bars`."""
        self._bars = bars
        self._tasks: dict[tuple[str, str], TaskID] = {}

    async def __call__(self, progress: Progress) -> None:
        """Draw one report."""
        key = (progress.stage, progress.subject)
        total = progress.total or None
        if key not in self._tasks:
            label = f"{progress.stage} {progress.subject}".strip()
            self._tasks[key] = self._bars.add_task(label, total=total)
        self._bars.update(self._tasks[key], completed=progress.done, total=total)
