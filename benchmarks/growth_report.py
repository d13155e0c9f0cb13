"""How cost grows, as tables and as a picture."""

from collections.abc import Iterator, Sequence
from math import log10

from benchmarks.growth import CountPoint, Growth, SizePoint, extrapolated

_EXTRAPOLATED = (10_000_000_000, 100_000_000_000)
_MODEL = (
    "Sizes in italics were not measured. The model: time is a constant and a share of the size, by "
    "the two largest measured; the repository is a share of the size; the chunk list is 35 bytes a "
    "chunk, of 16 KiB, or larger so that there are at most 262,144 of them, up to 64 KiB; the "
    "index follows the chunks, and so does memory, with 160 bytes each; a day's edits cost what "
    "they did per chunk that they touch, and the chunk list."
)
_Lines = dict[str, list[tuple[float, float]]]
_WIDTH, _HEIGHT, _LEFT, _TOP = 420, 320, 60, 90  # pixels of one panel
_COLOURS = ("#0a6e5c", "#c06014", "#3a5fb0")


def growth_tables(growth: Growth) -> list[str]:
    """Return the lines of both tables; none for what was not measured."""
    lines: list[str] = []
    if growth.sizes:
        lines += [
            "| size of the database | first backup | after a day's edits | repository | added by "
            "the edits | … of it the chunk list | index | peak memory |",
            "|--:|--:|--:|--:|--:|--:|--:|--:|",
            *(_size_line(point) for point in _with_extrapolated(growth.sizes)),
            "",
        ]
        lines += [_MODEL, ""] if len(growth.sizes) > 1 else []
    if growth.counts:
        lines += [
            "| snapshots | `list` from the terminal | list_backups, first page, in a server | "
            "create_backup, nothing changed, in a server |",
            "|--:|--:|--:|--:|",
            *(_count_line(point) for point in growth.counts),
            "",
        ]
    return lines


def _with_extrapolated(points: Sequence[SizePoint]) -> list[SizePoint]:
    found = sorted(points, key=lambda point: point.database)
    if len(found) > 1:
        largest = found[-1].database
        found += [extrapolated(points, size) for size in _EXTRAPOLATED if size > 1.5 * largest]
    return found


def _size_line(point: SizePoint) -> str:
    size = (
        f"{point.database / 1e9:,.2f} GB"
        if point.database < 5e9
        else f"{point.database / 1e9:,.0f} GB"
    )
    cells = (
        size if point.measured else f"*{size}*",
        f"{point.first:,.1f} s",
        f"{point.changed:,.1f} s",
        _megabytes(point.repository),
        _megabytes(point.added),
        _megabytes(point.chunk_list),
        _megabytes(point.index),
        _megabytes(point.memory),
    )
    return f"| {' | '.join(cells)} |"


def _count_line(point: CountPoint) -> str:
    cells = (
        f"{point.snapshots:,}",
        f"{point.terminal:.2f} s",
        f"{point.page * 1e3:.1f} ms",
        f"{point.unchanged * 1e3:.0f} ms",
    )
    return f"| {' | '.join(cells)} |"


def _megabytes(value: int) -> str:
    return f"{value / 1e6:,.1f} MB" if value < 1e8 else f"{value / 1e6:,.0f} MB"


def growth_svg(growth: Growth) -> str:
    """Draw seconds over gigabytes, and seconds over snapshots, both axes logarithmic."""
    sizes = sorted(growth.sizes, key=lambda point: point.database)
    panels: tuple[tuple[str, _Lines], ...] = (
        (
            "seconds by size in GB",
            {
                "first backup": [(point.database / 1e9, point.first) for point in sizes],
                "after a day's edits": [(point.database / 1e9, point.changed) for point in sizes],
            },
        ),
        (
            "seconds by number of snapshots",
            {
                "list, terminal": [(p.snapshots, p.terminal) for p in growth.counts],
                "list_backups, server": [(p.snapshots, p.page) for p in growth.counts],
                "nothing changed, server": [(p.snapshots, p.unchanged) for p in growth.counts],
            },
        ),
    )
    body = [
        line
        for number, (title, lines) in enumerate(panels)
        if any(lines.values())
        for line in _panel(title, lines, number * (_WIDTH + _LEFT + 20))
    ]
    width, height = 2 * (_WIDTH + _LEFT + 20), _HEIGHT + _TOP + 50
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
            f"viewBox='0 0 {width} {height}' font-family='system-ui, sans-serif' font-size='12'>",
            f"<rect width='{width}' height='{height}' fill='white'/>",
            *body,
            "</svg>",
            "",
        ]
    )


def _panel(title: str, lines: _Lines, left: float) -> Iterator[str]:
    points = [point for line in lines.values() for point in line]
    across = _Scale([x for x, _ in points], left + _LEFT, left + _LEFT + _WIDTH - 20)
    up = _Scale([y for _, y in points], _TOP + _HEIGHT, _TOP + 20)
    yield f"<text x='{left + _LEFT}' y='30' font-size='14' font-weight='600'>{title}</text>"
    for tick in across.ticks():
        yield (
            f"<text x='{across.at(tick):.0f}' y='{_TOP + _HEIGHT + 20}' fill='#555' "
            f"text-anchor='middle'>{tick:g}</text>"
        )
    for tick in up.ticks():
        y = up.at(tick)
        yield (
            f"<line x1='{left + _LEFT}' x2='{left + _LEFT + _WIDTH - 20}' y1='{y:.0f}' "
            f"y2='{y:.0f}' stroke='#ddd'/>"
            f"<text x='{left + _LEFT - 8}' y='{y + 4:.0f}' fill='#555' text-anchor='end'>"
            f"{tick:g}</text>"
        )
    for number, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[number]
        path = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in line)
        yield f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>"
        for x, y in line:
            yield f"<circle cx='{across.at(x):.1f}' cy='{up.at(y):.1f}' r='3' fill='{colour}'/>"
        place = 48 + 14 * number
        yield f"<text x='{left + _LEFT + 8}' y='{place}' fill='{colour}'>{name}</text>"


class _Scale:
    """A logarithmic axis over whole powers of ten."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self._low = int(log10(min(values)) // 1)
        self._high = max(int(-(-log10(max(values)) // 1)), self._low + 1)
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        share = (log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self._low, self._high + 1)]
