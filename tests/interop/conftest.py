"""The real restic: the judge of what we write, and the author of what we must read."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "correct horse"  # noqa: S105 - of repositories that tests make


@dataclass(frozen=True)
class Restic:
    """restic, bound to one repository. Call it with a command line."""

    location: Path
    environment: dict[str, str]

    def __call__(self, *arguments: str | Path) -> str:
        """Run restic, which must succeed; return what it printed."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"restic {arguments}: {done.stderr}{done.stdout}"
        return done.stdout

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self(*arguments, "--json"))

    def refuses(self, *arguments: str | Path) -> str:
        """Run restic, which must fail; return what it complained about."""
        done = self.run(*arguments)
        assert done.returncode != 0, f"restic {arguments} succeeded: {done.stdout}"
        return done.stderr + done.stdout

    def at(self, location: Path, password: str) -> "Restic":
        """The same restic on another repository."""
        names = {"RESTIC_REPOSITORY": str(location), "RESTIC_PASSWORD": password}
        return Restic(location, self.environment | names)

    def with_password(self, password: str) -> "Restic":
        return Restic(self.location, self.environment | {"RESTIC_PASSWORD": password})

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["restic", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def output(self, *arguments: str | Path) -> bytes:
        """Run restic, which must succeed; return what it put out, as it is."""
        return subprocess.run(
            ["restic", *arguments], env=self.environment, capture_output=True, check=True
        ).stdout

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start restic with an open standard input; the caller ends it."""
        return subprocess.Popen(
            ["restic", *arguments],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@pytest.fixture
def restic(tmp_path: Path) -> Restic:
    """restic on `tmp_path/repository` (which is not made yet) with PASSWORD."""
    if shutil.which("restic") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("restic is not installed, and these tests must run here")
        pytest.skip("restic is not installed")
    location = tmp_path / "repository"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "RESTIC_REPOSITORY": str(location),
        "RESTIC_PASSWORD": PASSWORD,
        "RESTIC_CACHE_DIR": str(tmp_path / "restic-cache"),
        "GOMAXPROCS": "2",
    }
    return Restic(location, environment)
