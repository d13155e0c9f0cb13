"""Links swapped in while DuckDB databases are restored lead nothing outside, as for other kinds."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from mcp_backup.verbs_restores import RestoreRequest
from tests.duckdb.ducks import left_open, run
from tests.duckdb.system import memories
from tests.duckdb.test_restore import system as system
from tests.duckdb.test_restore import template as template
from tests.restore.attacks import Attack, attacked, hard_linked, linked, outside
from tests.system import System

PLACE_FILE, PLACE_SHARDS = "exchange databases/memories", "exchange databases/akosha"


def live(system: System) -> Path:
    return memories(system.root)


def log(system: System) -> Path:
    return live(system).with_name(f"{live(system).name}.wal")


ATTACKS: Mapping[str, tuple[str, Attack]] = {
    "the file is a link": (PLACE_FILE, linked(live, "memories.duckdb")),
    "the file is a hard link": (PLACE_FILE, hard_linked(live, "memories.duckdb")),
    "its log is a hard link": (PLACE_FILE, hard_linked(log, "other")),
    "the root is a link": (PLACE_SHARDS, linked(lambda s: s.root / "akosha", "")),
    "a directory of shards is a link": (PLACE_SHARDS, linked(lambda s: s.root / "akosha/0", "0")),
}


@pytest.mark.parametrize("attack", list(ATTACKS))
async def test_a_link_swapped_in_leads_no_database_outside(system: System, attack: str) -> None:
    left_open(live(system), "DROP TABLE notes")  # a log, which is brought into its file first
    here = outside(system)
    for shard in (system.root / "akosha").rglob("*.duckdb"):
        copy = here / shard.relative_to(system.root / "akosha")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(shard.read_bytes())
        run(shard, "CREATE TABLE newer(a INTEGER)")
    (here / "memories.duckdb").write_bytes(live(system).read_bytes())
    (here / "other").write_bytes(log(system).read_bytes())
    before, act = ATTACKS[attack]
    source = before.rpartition("/")[2]
    await attacked(system, RestoreRequest(databases=(source,)), act, before)
