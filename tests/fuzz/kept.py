"""Files that the program keeps for itself, and that anybody may have written into since."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import gettempdir

from msgspec.structs import fields

from mcp_backup import history_queries as queries
from mcp_backup.alerts.alert import Alert
from mcp_backup.format.crypto import MasterKey
from mcp_backup.history import History
from mcp_backup.passphrase import Passphrase
from mcp_backup.proof import loading
from mcp_backup.proof import walks as walking
from mcp_backup.proof.evidence import Ledger
from mcp_backup.restore.approval import PlanStore, Stored, _encode
from mcp_backup.sources import keeping, postgres_ours, sqlite_undo, workflows
from mcp_backup.sources.duckdb_layout import read_kept
from mcp_backup.sources.source import Component, SourceSpec
from mcp_backup.tokens import PREFIX, TokenStore
from mcp_backup.verbs_restores import RestorePlan

PLAN = "plan_0123456789ab"
_NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
_PLAN = RestorePlan(
    plan_id=PLAN,
    backup_id="b",
    snapshot_id="s",
    created=_NOW,
    expires=_NOW + timedelta(hours=1),
    target="original",
    targets=(),
    scratch="",
    needed_bytes=0,
    free_bytes=0,
    approval="human",
    approved=False,
)
_KEY = MasterKey(bytes(32), bytes(16), bytes(16))


def place(name: str) -> Path:
    """A directory to write into; what was there before may be there still."""
    directory = Path(gettempdir()) / f"mcp-backup-fuzz-{name}"
    directory.mkdir(exist_ok=True)
    return directory


def beside_a_plan(suffix: str) -> Callable[[bytes], object]:
    """What a plan's other files say about it."""

    def read(data: bytes) -> object:
        directory = place(f"plan-{suffix}") / "plans"
        directory.mkdir(exist_ok=True)
        (directory / f"{PLAN}.json").write_bytes(_encode(Stored(_PLAN, {})))
        (directory / f"{PLAN}.{suffix}").write_bytes(data)
        return PlanStore(directory.parent, lambda: _NOW)._ready(PLAN, consent=False)

    return read


def evidence(data: bytes) -> None:
    """Drills on record: read, and one more put behind them."""
    ledger = Ledger(place("evidence"), _KEY)
    ledger.path.write_bytes(data)
    ledger._read()


def tokens(data: bytes) -> None:
    """Access tokens, as the server looks for one."""
    kept = TokenStore(place("tokens"), lambda: _NOW)
    kept.path.write_bytes(data)
    kept.find(f"{PREFIX}00000000_{'0' * 64}")


def attempts(data: bytes) -> None:
    """Wrong passphrases so far, and the next one."""
    directory = place("attempts")
    (directory / "approval-attempts.json").write_bytes(data)
    kept = Passphrase(directory, lambda: _NOW)
    kept.attempts()
    kept.check("a guess", "somebody", "approve")


def passphrase(data: bytes) -> None:
    """The hash of the passphrase; one that takes much work is slow, and no other code."""
    directory = place("passphrase")
    (directory / "approval-attempts.json").unlink(missing_ok=True)
    (directory / "approval.json").write_bytes(data)
    Passphrase(directory, lambda: _NOW).check("a guess", "somebody", "approve")


def kept_json(read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """The record in an undo point."""

    def reading(data: bytes) -> object:
        directory = place("undo")
        (directory / "kept.json").write_bytes(data)
        return read(directory)

    return reading


def history(data: bytes) -> None:
    """The file of the history as a whole: read, or moved aside and begun anew."""
    directory = place("history")
    shutil.rmtree(directory)
    directory.mkdir()
    (directory / "history.db").write_bytes(data)
    _read_history(directory)


def history_rows(data: bytes) -> None:
    """A row of the history with other values in it."""
    directory = place("history-rows")
    for path in directory.glob("history.db*"):
        path.unlink()
    _read_history(directory)
    with suppress(ValueError, RecursionError):  # no values at all
        values = json.loads(data)
        columns = values if isinstance(values, dict) else {}
        names = [name for name in columns if name in _COLUMNS]
        with (
            closing(sqlite3.connect(directory / "history.db")) as db,
            db,
            suppress(sqlite3.Error, OverflowError, UnicodeEncodeError),
        ):
            marks = ", ".join("?" * len(names))
            db.execute(
                f"INSERT OR REPLACE INTO runs ({', '.join(names)}) VALUES ({marks})",
                [columns[name] for name in names],
            )
    _read_history(directory)


_COLUMNS = (
    *("id", "verb", "subject", "slot", "attempt", "door", "client", "version", "tool", "token"),
    *("begun", "ended", "outcome", "backup_id", "read", "added", "stored", "duration"),
    *("error_code", "message"),
)


def _read_history(directory: Path) -> None:
    kept = History(directory / "history.db", lambda: _NOW)
    for work in (
        lambda db: queries.runs(db, "", None, 10),
        queries.newest_copies,
        queries.proofs,
        queries.totals,
        lambda db: queries.taken_slots(db, _NOW - timedelta(days=9), _NOW),
    ):
        kept._file.transact(work)


def alert(data: bytes) -> None:
    """An alert that waits to be delivered."""
    with suppress(ValueError):
        Alert.decoded(data.decode(errors="replace"))


def walks(data: bytes) -> None:
    """Walks through the runbook, on record."""
    directory = place("walks")
    (directory / walking.FILE).write_bytes(data)
    walking.read_walks(directory)


def documents(data: bytes) -> None:
    """The record in an undo point of documents."""
    directory = place("undo-documents")
    for name in ("present", "created"):
        (directory / name).mkdir(exist_ok=True)
    (directory / workflows.KEPT).write_bytes(data)
    workflows._kept(SourceSpec("n", Component.WORKFLOWS, "workflows", "/n", {}), directory)


def drilled(data: bytes) -> None:
    """Whose database a drill has made."""
    directory = place("drilling")
    (directory / loading._SOURCE).write_bytes(data)
    loading._read(directory)


def database(data: bytes) -> None:
    """Which database on a server an undo point is about."""
    directory = place("undo-postgres")
    (directory / postgres_ours.RECORD).write_bytes(data)
    postgres_ours.read_record(directory)


KEPT: Mapping[str, Callable[[bytes], object]] = {
    "alert": alert,
    "approved": beside_a_plan("approved"),
    "attempts": attempts,
    "drill-source": drilled,
    "evidence": evidence,
    "history": history,
    "history-rows": history_rows,
    "passphrase": passphrase,
    "tokens": tokens,
    "undo-duckdb": kept_json(read_kept),
    "undo-documents": documents,
    "undo-files": kept_json(keeping._read),
    "undo-postgres": database,
    "undo-sqlite": kept_json(sqlite_undo._record),
    "used": beside_a_plan("used"),
    "walks": walks,
}

_RUN = {
    "id": 1,
    "verb": "create",
    "subject": "full",
    "slot": "daily",
    "attempt": 1,
    "door": "mcp",
    "client": "c",
    "version": "1",
    "tool": "t",
    "token": "k",
    "begun": 1_795_000_000_000_000,
    "ended": 1_795_000_000_000_001,
    "outcome": "completed",
    "backup_id": "b",
    "read": 1,
    "added": 1,
    "stored": 1,
    "duration": 0.5,
    "error_code": "",
    "message": "m",
}
_KEPT_FILE = {
    "path": "a",
    "type": "file",
    "mode": 420,
    "uid": 0,
    "gid": 0,
    "mtime_ns": 1,
    "target": "",
    "file": 0,
    "size": 1,
    "digest": "segments:00",
}
_TOKEN = {
    "id": "00000000",
    "name": "n",
    "scopes": ["read"],
    "created": _NOW.isoformat(),
    "expires": _NOW.isoformat(),
    "revoked": None,
    "hash": "00" * 32,
}
_ATTEMPT = {"at": _NOW.isoformat(), "by": "b", "subject": "s", "outcome": "refused"}
_DRILL = {"number": 1, "previous": "0", "digest": "0", "seal": "0", "drill": {"phases": []}}


_ALERT = {
    "id": "i",
    "event": "failure",
    "subject": "s",
    "message": "m",
    "hint": "h",
    "host": "here",
    "time": _NOW.isoformat(),
    "since": _NOW.isoformat(),
}
_SOURCE = {"name": "n", "component": "databases", "kind": "postgres", "path": "p", "options": {}}
_MADE = {field.name: "1" for field in fields(postgres_ours.Made)} | {"notes": ["n"], "version": 1}
_STEP = {"section": "s", "outcome": "done", "seconds": 1.5}
_WALK = {
    "page": "p",
    "mode": "drill",
    "started": _NOW.isoformat(),
    "seconds": 2.5,
    "complete": True,
    "steps": [_STEP],
}


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


KEPT_SEEDS: dict[str, list[bytes]] = {
    "alert": [_json(_ALERT)],
    "drill-source": [_json(_SOURCE)],
    "undo-documents": [_json({"version": 1})],
    "undo-postgres": [_json(_MADE)],
    "walks": [_json(_WALK)],
    "approved": [_json({"by": "b", "at": _NOW.isoformat(), "plan": "00" * 32})],
    "attempts": [_json({"wrong": 1, "last_wrong": _NOW.isoformat(), "log": [_ATTEMPT]})],
    "evidence": [_json(_DRILL)],
    "history": [b"SQLite format 3\0" + bytes(84)],
    "history-rows": [_json(_RUN), _json(_RUN | {"begun": 1 << 62})],
    "passphrase": [_json({"scrypt": {"n": 2, "r": 8, "p": 1}, "salt": "00", "hash": "00"})],
    "tokens": [_json({"tokens": [_TOKEN]})],
    "undo-duckdb": [
        _json({"shards": [{"key": "", "state": "present", "number": 0}], "created": [""]})
    ],
    "undo-files": [
        _json({"version": 1, "created_root": False, "created": ["b"], "entries": [_KEPT_FILE]})
    ],
    "undo-sqlite": [
        _json({"state": "damaged", "original": "/n.db", "raw": ["", "-wal"], "version": 1})
    ],
    "used": [_json({"restore_id": "r", "at": _NOW.isoformat()})],
}
