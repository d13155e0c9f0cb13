"""Which paths under a root are meant: glob patterns, matched one path component at a time.

Patterns are relative to the root and match from its top: `.env` means the one in the root,
`**/.env` one at any depth. `*`, `?` and `[...]` match within a component, names that begin with a
dot too; `**` stands for any number of directories, and at the end for everything beneath.

    "settings/*.yaml"   files and links in settings/
    "settings"          that file, or everything beneath that directory
    "conf*/"            everything beneath each such directory

A selection keeps the positions that it has reached in every pattern, so the walk knows where it
need not go.
"""

import re
from collections.abc import Iterable, Sequence
from fnmatch import translate

from msgspec import Struct

from mcp_backup.errors import SettingsInvalid

_ANY_DEPTH = "**"
_EVERYTHING = -1  # the position beneath a directory that was selected whole
_WILD = frozenset("*?[")

Positions = frozenset[tuple[int, int]]  # (pattern, next component of it)


class _Pattern(Struct, frozen=True):
    components: tuple[re.Pattern[str] | None, ...]  # None: `**`
    whole: bool  # a directory that matches is meant with everything beneath
    directories: bool  # only directories are meant


class Match(Struct, frozen=True):
    """What some patterns say of one name: which select it, and what may match beneath it."""

    selected: frozenset[int]
    beneath: Positions


class Globs:
    """A list of patterns. `start` are the positions at the root."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Parse the patterns.

        Raises:
            SettingsInvalid: a pattern is empty, absolute, or climbs out with `..`.
        """
        self.texts = tuple(patterns)
        self._patterns = [_parse(text) for text in patterns]
        self.start: Positions = self._closed((index, 0) for index in range(len(patterns)))

    def match(self, at: Positions, name: str, *, directory: bool) -> Match:
        """Match one name in a directory that was reached with the positions `at`."""
        reached = self._closed(self._steps(at, name))
        selected: set[int] = set()
        beneath: set[tuple[int, int]] = set()
        for index, position in reached:
            pattern = self._patterns[index]
            if position not in (_EVERYTHING, len(pattern.components)):
                beneath.add((index, position))
            elif position == _EVERYTHING or (directory and pattern.whole):
                selected.add(index)
                beneath.add((index, _EVERYTHING))
            elif not directory and not pattern.directories:
                selected.add(index)
        return Match(frozenset(selected), frozenset(beneath) if directory else frozenset())

    def excludes(self, at: Positions, name: str, *, directory: bool) -> tuple[bool, Positions]:
        """Say whether any pattern means this very name, and what may match beneath it."""
        reached = self._closed(self._steps(at, name))
        hit = any(
            position in (_EVERYTHING, len(self._patterns[index].components))
            and (directory or not self._patterns[index].directories)
            for index, position in reached
        )
        return hit, reached

    def _steps(self, at: Positions, name: str) -> Iterable[tuple[int, int]]:
        for index, position in at:
            components = self._patterns[index].components
            if position == _EVERYTHING:
                yield index, position
            elif position < len(components):
                component = components[position]
                if component is None:
                    yield index, position
                elif component.match(name):
                    yield index, position + 1

    def _closed(self, positions: Iterable[tuple[int, int]]) -> Positions:
        """Add the positions past each `**` that is next: it may stand for no directory at all."""
        closed: set[tuple[int, int]] = set()
        for index, first in positions:
            position, components = first, self._patterns[index].components
            closed.add((index, position))
            while 0 <= position < len(components) and components[position] is None:
                position += 1
                closed.add((index, position))
        return frozenset(closed)


def _parse(text: str) -> _Pattern:
    names = [name for name in text.split("/") if name not in ("", ".")]
    if not names or text.startswith("/") or ".." in names or "\0" in text:
        raise SettingsInvalid(
            f"pattern {text!r} does not name anything under its root",
            hint="Write patterns relative to `root`, without a leading `/` and without `..`; "
            "`**` at any depth. Nothing was done.",
        )
    directories = text.endswith("/")
    last = names[-1]
    return _Pattern(
        tuple(None if name == _ANY_DEPTH else re.compile(translate(name)) for name in names),
        whole=directories or last == _ANY_DEPTH or not _WILD.intersection(last),
        directories=directories,
    )
