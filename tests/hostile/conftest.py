"""One small backup, to be forged again and again."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mcp_backup.catalog import Backup
from mcp_backup.engine import Engine
from mcp_backup.verbs import CreateRequest
from tests.hostile.forging import everything_outside
from tests.system import System, make_system


@dataclass(frozen=True)
class Genuine:
    """A system with one backup, open."""

    system: System
    engine: Engine
    backup: Backup
    out: Path


@pytest.fixture
async def genuine(tmp_path: Path) -> AsyncIterator[Genuine]:
    """A genuine backup; afterwards, nothing but the program's own directories has changed."""
    system = await make_system(tmp_path / "live", rows=3)
    async with system.engine() as engine:
        await engine.create(CreateRequest(verify=False))
        (backup,) = await engine.catalog.backups()
        out = system.root / "state" / "out"
        out.mkdir()
        before = everything_outside(system)
        yield Genuine(system, engine, backup, out)
        after = everything_outside(system)
        assert {path for path in before if before[path] != after.get(path)} <= {
            str(system.notes),  # a plan opens them, and an SQLite database's side files come and go
            str(system.tasks),
        }
        assert {Path(path).name for path in after.keys() - before.keys()} <= {
            f"{name}.db-{side}" for name in ("notes", "tasks") for side in ("wal", "shm")
        }
