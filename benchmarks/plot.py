"""The results as a picture: a bar for each program in each row, as SVG written by hand."""

from collections.abc import Iterator

from benchmarks.programs import BORG, OURS, RESTIC
from benchmarks.results import MEMORY, ROWS, Results, Row

_COLOURS = {OURS: "#0a6e5c", RESTIC: "#b9bec4", BORG: "#d9dce0"}
_ROWS = {  # the table's titles, shortened to fit
    "first": "first backup",
    "unchanged": "nothing changed",
    "changed": "after a day's edits",
    "changed size": "a day's edits, added to the repository",
    "days size": "repository after {days} days",
    "stage": "restore into a new file",
    "live": "restore into the live database",
    "check": "check of all data",
    "prune": "prune after forgetting half",
    "list": "list 1,000 snapshots",
    "first memory": "first backup, memory",
    "stage memory": "restore into a new file, memory",
    "check memory": "check of all data, memory",
}
_WIDTH, _LABEL, _BAR, _GAP = 860, 290, 12, 20  # pixels
_STYLE = "font-family='system-ui, sans-serif' font-size='13'"


def svg(results: Results, title: str, days: int) -> str:
    """Draw how each program compares with restic, which is 1 in every row."""
    rows = [key for key in _ROWS if results.median(key, RESTIC)]
    body, top = [], 74
    for key in rows:
        body += list(_row(results, key, top, days))
        top += 3 * _BAR + _GAP
    height = top + 10
    unit = _LABEL + _scale()
    head = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH}' height='{height}' "
        f"viewBox='0 0 {_WIDTH} {height}' {_STYLE}>",
        f"<rect width='{_WIDTH}' height='{height}' fill='white'/>",
        f"<text x='14' y='26' font-size='16' font-weight='600'>{_escaped(title)}</text>",
        *_legend(),
        f"<line x1='{unit}' x2='{unit}' y1='62' y2='{height - 14}' stroke='#888' "
        "stroke-dasharray='3 3'/>",
    ]
    return "\n".join([*head, *body, "</svg>", ""])


def _scale() -> float:
    """Return the pixels of restic's bar; bars are cut at twice that."""
    return (_WIDTH - _LABEL - 130) / 2


def _legend() -> Iterator[str]:
    left = 14
    for program, colour in _COLOURS.items():
        yield f"<rect x='{left}' y='40' width='12' height='12' fill='{colour}'/>"
        yield f"<text x='{left + 18}' y='51'>{program}</text>"
        left += 8 * len(program) + 44
    yield (
        f"<text x='{left}' y='51' fill='#666'>restic = 1, the dashed line; shorter is better</text>"
    )


def _row(results: Results, key: str, top: int, days: int) -> Iterator[str]:
    row = ROWS.get(key) or MEMORY[key]
    title = _ROWS[key].format(days=days)
    base = results.median(key, RESTIC) or 1
    yield f"<text x='{_LABEL - 12}' y='{top + 22}' text-anchor='end'>{_escaped(title)}</text>"
    for place, (program, colour) in enumerate(_COLOURS.items()):
        value = results.median(key, program)
        if value is None:
            continue
        y, ratio = top + place * _BAR, value / base
        width = max(1.0, min(ratio, 2.0) * _scale())
        yield (
            f"<rect x='{_LABEL}' y='{y}' width='{width:.1f}' height='{_BAR - 2}' fill='{colour}'/>"
        )
        more = "" if ratio <= 2 else f" ({ratio:.1f} times)"
        yield (
            f"<text x='{_LABEL + width + 6:.1f}' y='{y + 9}' font-size='10' fill='#333'>"
            f"{_told(value, row)}{more}</text>"
        )


def _told(value: float, row: Row) -> str:
    return f"{value / 1e6:,.0f} MB" if row.unit == "MB" else f"{value:.2f} s"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
