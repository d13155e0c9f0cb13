"""The programs that are compared, each told to do the same in its own words."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.processes import ProgramFailed, Run, measured, tree_size
from mcp_backup.opening import initialise
from mcp_backup.settings import load_settings

OURS, RESTIC, BORG = "mcp-backup", "restic", "borg"
_PACKAGES = {RESTIC: "restic", BORG: "borgbackup"}  # Debian's names


class Program(Protocol):
    """A backup program at work in a directory of its own, on one directory of live files."""

    name: str
    watch: bool  # the memory of what is run, instead of the time
    repository: Path

    def create_repository(self) -> None: ...
    def first(self) -> Run: ...
    def unchanged(self) -> Run: ...
    def changed(self) -> Run: ...
    def stage(self) -> Run: ...
    def check(self) -> Run: ...
    def repository_size(self) -> int: ...


class Ours:
    """mcp-backup, run from the terminal as a person would."""

    name = OURS
    watch = False

    def __init__(self, home: Path, live: Path) -> None:
        """Work below `home`; `live` holds memory.db."""
        self.home, self.repository = _fresh(home), home / "repository"
        self.config = home / "mcp-backup.toml"
        self.environment = _environment(home)
        self.config.write_text(
            f'state_dir = "{home}/state"\n'
            f'[repository]\nlocation = "{self.repository}"\npassword_file = "{home}/key"\n'
            f'[[databases]]\nname = "memory"\npath = "{live}/memory.db"\n'
        )

    def command(self, *words: str) -> list[str]:
        """Return a command of ours."""
        script = Path(sys.executable).with_name("mcp-backup")
        return [str(script), words[0], "--config", str(self.config), *words[1:]]

    def run(self, *words: str) -> Run:
        """Run a command of ours and measure it."""
        return measured(self.command(*words), self.environment, self.home, watch=self.watch)

    def create_repository(self) -> None:
        """Make the repository, with a generated key file."""
        asyncio.run(initialise(load_settings(self.config, self.environment, self.home)))

    def first(self) -> Run:
        """Back up what was never backed up."""
        return self.run("create", "--backup_type", "database", "--no-verify")

    def unchanged(self) -> Run:
        """Back up again, trusting change detection, as restic and borg trust times."""
        return self.run("create", "--backup_type", "incremental", "--no-verify")

    def changed(self) -> Run:
        """Back up what has changed."""
        return self.first()

    def verified(self) -> Run:
        """Back up everything, read it back and examine it, as is usual but in this benchmark."""
        return self.run("create", "--backup_type", "full")

    def restore_live(self) -> Run:
        """Restore into the live database: undo point, staging, proof, exchange."""
        return self.run("restore", "--databases", "memory", "--yes")

    def restore_scratch(self) -> Run:
        """Restore beside the live database."""
        return self.run("restore", "--databases", "memory", "--target", "scratch")

    def remove_restored(self) -> None:
        """Remove what restores left: copies beside the live database, and undo points."""
        state = self.home / "state"
        for left in (state / "scratch", *state.glob("*/restores")):
            shutil.rmtree(left, ignore_errors=True)

    def stage(self) -> Run:
        """Only bring the file's bytes back, each proven by its blob's id."""
        out = _fresh(self.home / "out") / "memory.db"
        command = [sys.executable, "-m", "benchmarks.staging", str(self.config), str(out)]
        environment = {**self.environment, "PYTHONPATH": str(Path(__file__).parents[1])}
        return measured(command, environment, self.home, watch=self.watch)

    def check(self) -> Run:
        """Read and prove everything in the repository."""
        return self.run("check", "--level", "data")

    def prune(self) -> Run:
        """Delete what no snapshot needs."""
        return self.run("prune")

    def repository_size(self) -> int:
        """Return the repository's bytes."""
        return tree_size(self.repository)


class Restic:
    """restic, with its defaults; compression "auto" is zstd."""

    name = RESTIC
    watch = False

    def __init__(self, home: Path, live: Path, repository: Path | None = None) -> None:
        """Work below `home`, on a repository there or on one that exists."""
        self.home, self._live = _fresh(home), live
        self.repository = repository or home / "repository"
        self.environment = {
            **_environment(home),
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_PASSWORD": "bench",
            "RESTIC_CACHE_DIR": str(home / "cache"),
        }

    def run(self, *words: str, directory: Path | None = None) -> Run:
        """Run restic and measure it."""
        place = directory or self.home
        return measured([found(RESTIC), *words], self.environment, place, watch=self.watch)

    def create_repository(self) -> None:
        """Make a version 2 repository."""
        self.run("init", "--repository-version", "2")

    def first(self) -> Run:
        """Back up the directory of live files."""
        return self.run("backup", str(self._live))

    unchanged = first
    changed = first

    def stage(self) -> Run:
        """Restore into an empty directory."""
        return self.run("restore", "latest", "--target", str(_fresh(self.home / "out")))

    def check(self) -> Run:
        """Read and prove everything in the repository."""
        return self.run("check", "--read-data")

    def snapshots(self) -> Run:
        """List all snapshots."""
        return self.run("snapshots")

    def prune(self) -> Run:
        """Delete what no snapshot needs, but for as much as we leave: 5 %, its default."""
        return self.run("prune")

    def repository_size(self) -> int:
        """Return the repository's bytes."""
        return tree_size(self.repository)


class Borg:
    """borg, encrypted (repokey), with zstd level 1, which is our default too."""

    name = BORG
    watch = False

    def __init__(self, home: Path, live: Path) -> None:
        """Work below `home`."""
        self.home, self._live = _fresh(home), live
        self.repository = home / "repository"
        self._archives = 0
        self.environment = {
            **_environment(home),
            "BORG_REPO": str(self.repository),
            "BORG_PASSPHRASE": "bench",
            "BORG_BASE_DIR": str(home / "base"),
        }

    def run(self, *words: str, directory: Path | None = None) -> Run:
        """Run borg and measure it."""
        place = directory or self.home
        return measured([found(BORG), *words], self.environment, place, watch=self.watch)

    def create_repository(self) -> None:
        """Make an encrypted repository."""
        self.run("init", "--encryption", "repokey")

    def first(self) -> Run:
        """Back up the directory of live files."""
        self._archives += 1
        name = f"::{self._archives}"
        return self.run("create", "--compression", "zstd,1", name, str(self._live))

    unchanged = first
    changed = first

    def stage(self) -> Run:
        """Extract into an empty directory."""
        out = _fresh(self.home / "out")
        return self.run("extract", f"::{self._archives}", directory=out)

    def check(self) -> Run:
        """Read and prove everything in the repository."""
        return self.run("check", "--verify-data")

    def repository_size(self) -> int:
        """Return the repository's bytes."""
        return tree_size(self.repository)


def found(program: str) -> str:
    """Return a peer's path.

    Raises:
        ProgramFailed: it is not installed; the message says what to install.
    """
    path = shutil.which(program)
    if path is None:
        raise ProgramFailed(f"{program} is not installed: apt-get install {_PACKAGES[program]}")
    return path


def version(command: Sequence[str]) -> str:
    """Return the first line of what a program says about its version."""
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return said.splitlines()[0]


def _environment(home: Path) -> dict[str, str]:
    """Return an environment that says nothing of the person running this."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "TMPDIR": str(home)}


def _fresh(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory
