"""One small live system, made and backed up once, and copied for each test."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.restore.bench import backed_up
from tests.system import System, make_system, settings_of


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system with a backup of all it has; never changed."""

    async def make(root: Path) -> None:
        await backed_up(await make_system(root, rows=20))

    root = tmp_path_factory.mktemp("template") / "system"
    asyncio.run(make(root))
    return root


@pytest.fixture
def system(template: Path, tmp_path: Path) -> System:
    """A copy of the template for one test."""
    return copied(template, tmp_path / "system")


def copied(template: Path, root: Path) -> System:
    """Copy a system; its settings are those of its new place."""
    shutil.copytree(template, root)
    return System(root, settings_of(root))
