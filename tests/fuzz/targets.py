"""Every decoder of bytes that somebody else may have written, one function each.

A target takes any bytes. What it may raise is a `BackupError`; anything else is a finding.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import gettempdir

from mcp_backup import manifest
from mcp_backup.errors import BackupError
from mcp_backup.format.config import decode_config
from mcp_backup.format.crypto import MasterKey, Sealer
from mcp_backup.format.index import decode_index
from mcp_backup.format.key import open_key_file
from mcp_backup.format.lock import decode_lock
from mcp_backup.format.pack import decode_header
from mcp_backup.format.snapshot import decode_snapshot
from mcp_backup.format.tree import decode_tree
from mcp_backup.format.unpacked import decode_unpacked
from mcp_backup.kit_record import decode_record
from mcp_backup.recovery_page import parse_page
from mcp_backup.restore import journal
from mcp_backup.restore.approval import PlanStore
from mcp_backup.settings import load_settings
from tests.fuzz.kept import KEPT

_PLAN = "plan_0123456789ab"
_MOST_INFLATED = 1 << 20
_KEY = MasterKey(bytes(32), bytes(16), bytes(16))


def _journal(data: bytes) -> None:
    directory = _place("journal")
    (directory / journal.JOURNAL).write_bytes(data + b"\n")
    journal.read(directory)


def _plan(data: bytes) -> None:
    directory = _place("state") / "plans"
    directory.mkdir(exist_ok=True)
    (directory / f"{_PLAN}.json").write_bytes(data)
    PlanStore(directory.parent, lambda: datetime(2026, 11, 24, tzinfo=UTC))._current(_PLAN)


def _settings(data: bytes) -> None:
    file = _place("settings") / "mcp-backup.toml"
    file.write_bytes(data)
    load_settings(file, {}, file.parent)


def _key(data: bytes) -> None:
    if b'"N":1024' in data or b"scrypt" not in data:  # more work is slow, and no other code
        open_key_file(data, "password")


def _place(name: str) -> Path:
    directory = Path(gettempdir()) / f"mcp-backup-fuzz-{name}"
    directory.mkdir(exist_ok=True)
    return directory


TARGETS: Mapping[str, Callable[[bytes], object]] = {
    "config": decode_config,
    "header": decode_header,
    "index": decode_index,
    "journal": _journal,
    "key": _key,
    "kit": lambda data: parse_page(data.decode(errors="replace")),
    "kit-record": decode_record,
    "lock": decode_lock,
    "manifest": manifest.decode,
    "plan": _plan,
    "sealed": lambda data: Sealer(_KEY).unseal(data),
    "settings": _settings,
    "snapshot": decode_snapshot,
    "tree": decode_tree,
    "unpacked": lambda data: decode_unpacked(data, _MOST_INFLATED),
    **KEPT,
}


def try_target(name: str, data: bytes) -> None:
    """Decode; what is expected to be raised is."""
    try:
        TARGETS[name](data)
    except BackupError:
        return
