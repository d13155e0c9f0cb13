"""Plans as files: approved elsewhere, used once, refused when too old; and ids that are paths."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from mcp_backup.errors import ApprovalRequired, PlanExpired, UnknownPlan
from mcp_backup.restore.approval import PlanStore, Stored, new_plan_id
from mcp_backup.restore.seen import Seen
from mcp_backup.sources.source import Component, Holder
from mcp_backup.verbs_restores import PlannedTarget, RestorePlan
from tests.doubles import FrozenClock

CLOCK = FrozenClock()
TARGET = PlannedTarget(
    source="notes",
    component=Component.DATABASES,
    kind="sqlite",
    original="/data/notes.db",
    live_state="present",
    live_bytes=8192,
    backup_bytes=4096,
    action="replace",
    holders=(Holder(7, "agent", "/data/notes.db"),),
    lost="changes since then would be lost",
)


def a_plan(clock: FrozenClock = CLOCK) -> Stored:
    plan = RestorePlan(
        plan_id=new_plan_id(os.urandom),
        backup_id="backup_20261122_120000",
        snapshot_id="ab" * 32,
        created=clock(),
        expires=clock() + timedelta(minutes=60),
        target="original",
        targets=(TARGET,),
        scratch="",
        needed_bytes=1,
        free_bytes=2,
        approval="human",
        approved=False,
        warnings=("notes: in use by agent (7)",),
    )
    seen = Seen("files", "/srv", "present", "1:2", {".env": "file:600:segments:00"}, 5, 6)
    return Stored(plan, {"databases/notes": seen})


async def test_a_plan_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    stored = a_plan()
    await PlanStore(tmp_path, CLOCK).add(stored)
    assert await PlanStore(tmp_path, CLOCK).find(stored.plan.plan_id) == stored


async def test_a_plan_waits_for_its_approval_which_may_come_from_another_process(
    tmp_path: Path,
) -> None:
    plans, stored = PlanStore(tmp_path, CLOCK), a_plan()
    await plans.add(stored)
    with pytest.raises(ApprovalRequired, match=stored.plan.plan_id):
        await plans.ready(stored.plan.plan_id, consent=False)
    assert (await PlanStore(tmp_path, CLOCK).approve(stored.plan.plan_id, "ada")).approved
    assert (await plans.ready(stored.plan.plan_id, consent=False)).plan.approved
    document = (tmp_path / "plans" / f"{stored.plan.plan_id}.approved").read_text()
    assert json.loads(document)["by"] == "ada"


async def test_approving_twice_keeps_the_first_approval(tmp_path: Path) -> None:
    plans, stored = PlanStore(tmp_path, CLOCK), a_plan()
    await plans.add(stored)
    await plans.approve(stored.plan.plan_id, "ada")
    await plans.approve(stored.plan.plan_id, "eve")
    document = (tmp_path / "plans" / f"{stored.plan.plan_id}.approved").read_text()
    assert json.loads(document)["by"] == "ada"


async def test_consent_at_the_door_is_enough(tmp_path: Path) -> None:
    plans, stored = PlanStore(tmp_path, CLOCK), a_plan()
    await plans.add(stored)
    assert await plans.ready(stored.plan.plan_id, consent=True)


async def test_a_plan_is_good_until_it_expires(tmp_path: Path) -> None:
    clock = FrozenClock()
    plans, stored = PlanStore(tmp_path, clock), a_plan(clock)
    await plans.add(stored)
    clock.advance(timedelta(minutes=59, seconds=59))
    assert await plans.ready(stored.plan.plan_id, consent=True)
    clock.advance(timedelta(seconds=1))
    with pytest.raises(PlanExpired, match="was good until 2026-11-22 13:00 UTC"):
        await plans.ready(stored.plan.plan_id, consent=True)
    with pytest.raises(PlanExpired):
        await plans.approve(stored.plan.plan_id, "ada")


async def test_a_plan_is_used_once(tmp_path: Path) -> None:
    plans, stored = PlanStore(tmp_path, CLOCK), a_plan()
    await plans.add(stored)
    await plans.use_up(stored.plan.plan_id, "restore_20261122_120000_00000001")
    for refused in (plans.ready(stored.plan.plan_id, consent=True),):
        with pytest.raises(PlanExpired, match="used by restore_20261122_120000_00000001"):
            await refused
    with pytest.raises(PlanExpired, match="good for one restore"):
        await plans.use_up(stored.plan.plan_id, "restore_20261122_120000_00000002")


USE_UP = """
import anyio, sys
from datetime import datetime, UTC
from pathlib import Path
from mcp_backup.restore.approval import PlanStore
state, plan, restore = sys.argv[1:]
sys.stdin.read(1)
anyio.run(PlanStore(Path(state), lambda: datetime.now(UTC)).use_up, plan, restore)
"""


async def test_of_several_processes_one_uses_a_plan(tmp_path: Path) -> None:
    plans, stored = PlanStore(tmp_path, CLOCK), a_plan()
    await plans.add(stored)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", USE_UP, str(tmp_path), stored.plan.plan_id, f"restore_{n}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for n in range(4)
    ]
    for child in children:  # all are waiting by now, or will not wait at all
        assert child.stdin is not None
        child.stdin.write(b"x")
        child.stdin.close()
    ended = [await anyio.to_thread.run_sync(child.wait) for child in children]
    assert sorted(ended) == [0, 1, 1, 1]


@pytest.mark.parametrize(
    "identity",
    ["../../etc/passwd", "plan_../x", "plan_0123456789ab/../x", "plan_0123456789AB", "", "plan_\0"],
)
async def test_an_id_that_is_a_path_is_an_unknown_plan(tmp_path: Path, identity: str) -> None:
    plans = PlanStore(tmp_path, CLOCK)
    for refused in (
        plans.find(identity),
        plans.approve(identity, "eve"),
        plans.ready(identity, consent=True),
        plans.use_up(identity, "restore_x"),
    ):
        with pytest.raises(UnknownPlan, match="no plan has the id"):
            await refused
    assert list(tmp_path.iterdir()) == []


async def test_a_plan_file_that_is_no_plan_means_planning_again(tmp_path: Path) -> None:
    plans, stored = PlanStore(tmp_path, CLOCK), a_plan()
    await plans.add(stored)
    (tmp_path / "plans" / f"{stored.plan.plan_id}.json").write_text('{"plan": {}}')
    with pytest.raises(PlanExpired, match="cannot be read"):
        await plans.find(stored.plan.plan_id)


async def test_plans_are_swept_a_week_after_their_end_and_not_before(tmp_path: Path) -> None:
    clock = FrozenClock()
    plans, first = PlanStore(tmp_path, clock), a_plan(clock)
    await plans.add(first)
    await plans.approve(first.plan.plan_id, "ada")
    clock.advance(timedelta(days=7))
    await plans.add(a_plan(clock))
    assert await plans.find(first.plan.plan_id)
    clock.advance(timedelta(hours=2))
    last = a_plan(clock)
    await plans.add(last)
    with pytest.raises(UnknownPlan):
        await plans.find(first.plan.plan_id)
    assert not list((tmp_path / "plans").glob(f"{first.plan.plan_id}*"))
    assert await plans.find(last.plan.plan_id)


def test_what_binds_a_plan_and_what_does_not() -> None:
    database = Seen("sqlite", "/data/notes.db", "present", "1:2", {}, 4096, 10)
    assert database.differs(replace(database, size=8192, changed_ns=11)) == ""
    assert "absent" in database.differs(Seen("sqlite", "/data/notes.db", "absent"))
    assert "damaged" in database.differs(replace(database, state="damaged"))
    assert "another under the same name" in database.differs(replace(database, identity="1:3"))
    assert "settings" in database.differs(replace(database, path="/other.db"))
    files = Seen("files", "/srv", "present", "1:2", {".env": "old", "a": "same"})
    changed = replace(files, signature={".env": "new", "a": "same"})
    assert files.differs(changed) == ".env changed"
