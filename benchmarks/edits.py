"""What edits cost a repository: added bytes, step after step, beside restic on the same files."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.processes import tree_size
from benchmarks.programs import Restic
from mcp_backup.opening import initialise, opened
from mcp_backup.settings import Settings
from mcp_backup.settings_sections import DatabaseSettings, RepositorySettings
from mcp_backup.verbs import CreateRequest

Save = Callable[[Path], object]


def settings_for(work: Path, source: DatabaseSettings) -> Settings:
    """Settings of a repository in `work` for one source."""
    return Settings(
        repository=RepositorySettings(location=str(work / "ours"), password_file=work / "ours.key"),
        databases=(source,),
        state_dir=work / "state",
    )


def tell(
    work: Path,
    settings: Settings,
    steps: Mapping[str, Callable[[], None]],
    saved: Mapping[str, Save],
) -> None:
    """Take the steps, back up after each, and print a table of the bytes that were added.

    `saved` has a function for each way of giving restic the database: into a directory.
    """
    asyncio.run(initialise(settings))
    peers: dict[str, Restic] = {}
    for name in saved:
        home = work / str(len(peers))
        peers[name] = Restic(home, home / "live")
        peers[name].create_repository()
    print("| | read | mcp-backup |" + "".join(f" {name} |" for name in peers))
    print("|---" * (3 + len(peers)) + "|")
    for step, change in steps.items():
        change()
        before = tree_size(work / "ours")
        read = asyncio.run(_created(settings))
        cells = [f"{read / 1e6:.1f} MB", f"{(tree_size(work / 'ours') - before) / 1e6:.2f} MB"]
        for name, peer in peers.items():
            (peer.home / "live").mkdir(exist_ok=True)
            saved[name](peer.home / "live")
            before = peer.repository_size()
            peer.changed()
            cells.append(f"{(peer.repository_size() - before) / 1e6:.2f} MB")
        print(f"| {step} | {' | '.join(cells)} |", flush=True)


async def _created(settings: Settings) -> int:
    """Back up; return the bytes read."""
    async with opened(settings) as engine:
        return (await engine.create(CreateRequest(verify=False))).read_bytes
