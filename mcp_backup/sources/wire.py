"""What travels between a worker and its parent about sources, as JSON values and back.

Paths that are not UTF-8 survive: JSON escapes the surrogates that stand for their bytes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mcp_backup.errors import BackupError
from mcp_backup.sources.source import Component, Entry, Evidence, FileEvidence, SourceSpec


def spec_of(value: Mapping[str, Any]) -> SourceSpec:
    """Return the source that `asdict` made `value` of."""
    return SourceSpec(**{**value, "component": Component(value["component"])})


def entry_of(value: Mapping[str, Any]) -> Entry:
    """Return the entry that `asdict` made `value` of."""
    return Entry(**value)


def evidence_of(value: Mapping[str, Any]) -> Evidence:
    """Return the evidence that `asdict` made `value` of."""
    files = tuple(FileEvidence(**file) for file in value["files"])
    return Evidence(**{**value, "files": files, "notes": tuple(value["notes"])})


def fields_of(error: BackupError) -> dict[str, str]:
    """Return what it takes to raise `error` again in another process."""
    return {"code": error.code, "message": str(error), "hint": error.hint}


def error_of(value: Mapping[str, Any]) -> BackupError:
    """Return the error that `fields_of` took apart, of the same class."""
    family = next((kind for kind in _classes() if kind.code == value["code"]), BackupError)
    error = family.__new__(family)
    BackupError.__init__(error, value["message"], hint=value["hint"])
    return error


def _classes() -> Iterator[type[BackupError]]:
    waiting = [BackupError]
    while waiting:
        family = waiting.pop()
        yield family
        waiting += family.__subclasses__()
