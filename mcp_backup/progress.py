"""How long work tells how far it is, without knowing who listens."""

from typing import Protocol

from msgspec import Struct


class Progress(Struct, frozen=True):
    """One report: `done` of `total` (bytes, or steps when `unit` says so), and what is going on.

    `total` is 0 while it is not known. `done` never falls within one `stage`.
    """

    stage: str  # "capture", "verify", "stage", "examine", "swap", "check", "mark", "repack", …
    subject: str  # the source or object being worked on
    done: int
    total: int


class Listener(Protocol):
    """Something that wants to know. Called often and from the event loop, so it must be quick."""

    async def __call__(self, progress: Progress) -> None:
        """Take one report."""
        ...


async def nobody(progress: Progress) -> None:
    """Listen to nothing."""
