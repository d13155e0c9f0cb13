"""Where our retention and restic's mean the same, both keep the same."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, digest
from mcp_backup.format.snapshot import Snapshot
from mcp_backup.format.tree import encode_tree
from mcp_backup.retention import Candidate, Copy, Policy, judge
from mcp_backup.store.location import create_store
from tests.interop.conftest import Restic
from tests.repository.packing import PASSWORD, new_repository, save_index, save_pack, stored_file

BEGIN = datetime(2025, 11, 1, tzinfo=UTC)  # so that ISO weeks cross the end of the year
TREE = encode_tree([stored_file("a", [])])

times = st.tuples(  # crowded around noon and midnight
    st.integers(0, 180), st.sampled_from([0, 1, 2, 725, 1438, 1439]), st.integers(0, 59)
)
histories = st.sets(times, min_size=1, max_size=50)
policies = st.tuples(st.integers(0, 8), st.integers(0, 6), st.integers(0, 4)).filter(any)


async def save_snapshots(location: Path, moments: list[datetime]) -> dict[str, datetime]:
    """Snapshots of one tiny tree, as cheap as they can be; their times by id."""
    repository = await new_repository(await create_store(str(location)))
    await save_index(repository, await save_pack(repository, BlobKind.TREE, [TREE]))
    tree, saved = BlobId(digest(TREE)), {}
    for moment in moments:
        snapshot = Snapshot(time=moment, tree=tree, paths=("/data",), hostname="here")
        saved[(await repository.add_snapshot(snapshot)).hex()] = moment
    return saved


def kept_by_restic(restic: Restic, policy: Policy) -> set[str]:
    tiers = (("daily", policy.daily), ("weekly", policy.weekly), ("monthly", policy.monthly))
    flags = [word for tier, count in tiers if count for word in (f"--keep-{tier}", str(count))]
    (group,) = restic.json("forget", "--dry-run", *flags)
    return {snapshot["id"] for snapshot in group["keep"]}


def kept_by_us(saved: Mapping[str, datetime], policy: Policy) -> set[str]:
    history = [
        Candidate(identity, moment, "database", (Copy("a", proven=True),))
        for identity, moment in saved.items()
    ]
    verdicts = judge(history, policy, BEGIN + timedelta(days=365))
    return {verdict.id for verdict in verdicts if verdict.reasons}


@given(histories, st.lists(policies, min_size=4, max_size=4))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_keep_the_same_snapshots_of_any_history(
    restic: Restic, history: set[tuple[int, int, int]], counts: list[tuple[int, int, int]]
) -> None:
    """restic 0.16 and later also keep the oldest while a tier is not filled."""
    moments = [BEGIN + timedelta(days=d, minutes=m, seconds=s) for d, m, s in history]
    location = restic.location.with_name(f"repository-{uuid4()}")
    there = restic.at(location, PASSWORD)
    saved = anyio.run(save_snapshots, location, moments)
    oldest = {min(saved, key=lambda identity: saved[identity])}
    for daily, weekly, monthly in counts:
        policy = Policy(daily, weekly, monthly, minimum=0, timezone=UTC)
        ours, theirs = kept_by_us(saved, policy), kept_by_restic(there, policy)
        assert ours - oldest == theirs - oldest
        assert ours <= theirs
