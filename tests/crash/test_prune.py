"""kill -9 at every call of the store that a prune makes.

After each, every snapshot is whole, and the next prune takes the dead one's lock away and finishes.
"""

import subprocess
import sys
from pathlib import Path

from mcp_backup.repository.locks import locked
from mcp_backup.store.local import LocalStore
from mcp_backup.store.location import create_store
from tests.repository.pruning import ALONE, assert_whole, contents, prune, reopened
from tests.repository.test_prune import scene


async def test_a_prune_killed_at_any_call_leaves_every_snapshot_whole_and_the_next_finishes(
    tmp_path: Path,
) -> None:
    template = tmp_path / "template"
    await scene(await create_store(str(template)))
    kept = await contents(await reopened(LocalStore(template)))
    ended = subprocess.run(
        [sys.executable, "-m", "tests.crash.prune_child", str(template), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    calls = ended.stdout.splitlines()
    packs = await left(tmp_path / "calm")
    seen = set()
    for number, call in enumerate(calls, start=1):
        store = LocalStore(tmp_path / f"{number}")
        seen.add(len(await store.objects("data/")))
        await assert_whole(store, kept)
        await prune(await reopened(store))
        assert await left(tmp_path / f"{number}") == packs, f"killed before {call}"
    assert {"put", "get", "objects", "delete"} == {call.split()[0] for call in calls}
    assert len(seen) > 2  # some were killed before, some between, and some after the deleting


async def left(root: Path) -> int:
    """How many packs there are in the store; there are no locks, and all packs are listed."""
    repository = await reopened(LocalStore(root))
    async with locked(repository, exclusive=True, times=ALONE):
        index = await repository.load_index()
    packs = await repository.store.objects("data/")
    assert len(packs) == index.pack_count
    assert await repository.store.objects("locks/") == {}
    return len(packs)
