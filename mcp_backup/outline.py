"""What is told of a backup again and again, out of its manifest: a few words per source.

A manifest carries the evidence of every file and takes some milliseconds to fetch and parse;
lists, verdicts and searches need none of that. An outline is small enough to keep of all.
"""

from typing import Literal, NamedTuple, Self

from msgspec import Struct

from mcp_backup.manifest import Manifest

Plain = tuple[str, str, tuple[tuple[str, str, str, str, bool, bool], ...]]  # what JSON can carry


class SourceOutline(NamedTuple):
    """One source in a backup.

    `proven`: it was read back when it was made, without findings. `suspect`: it looked damaged
    or shrunken then.
    """

    component: str
    name: str
    kind: str
    outcome: Literal["stored", "unchanged", "failed"]
    proven: bool
    suspect: bool


class Outline(Struct, frozen=True):
    """One backup."""

    status: str
    note: str
    sources: tuple[SourceOutline, ...]

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Take the outline of a manifest."""
        return cls(
            manifest.status,
            manifest.note,
            tuple(
                SourceOutline(
                    str(record.component),
                    record.name,
                    record.kind,
                    record.outcome,
                    record.verified and not record.findings,
                    bool(record.findings or record.suspect),
                )
                for record in manifest.sources
            ),
        )

    def plain(self) -> Plain:
        """Return it as JSON can carry it."""
        return self.status, self.note, self.sources

    @classmethod
    def from_plain(cls, plain: Plain) -> Self:
        """Return what `plain` made that of."""
        status, note, sources = plain
        return cls(status, note, tuple(map(SourceOutline._make, sources)))
