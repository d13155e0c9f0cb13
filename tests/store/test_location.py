from pathlib import Path

import pytest

from mcp_backup.errors import SettingsInvalid
from mcp_backup.store.location import create_store, open_store


async def test_an_absolute_path_is_a_local_store_and_opening_makes_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "r"))
    assert store.location == str(tmp_path / "r")
    assert not (tmp_path / "r").exists()


async def test_creating_makes_the_layout_and_may_be_repeated(tmp_path: Path) -> None:
    for _ in range(2):
        store = await create_store(str(tmp_path / "deep" / "r"))
    assert await store.objects("") == {}
    directories = {path.name for path in (tmp_path / "deep" / "r").iterdir()}
    assert directories == {"keys", "locks", "snapshots", "index", "data"}
    packs = sorted(path.name for path in (tmp_path / "deep" / "r" / "data").iterdir())
    assert packs == [f"{number:02x}" for number in range(256)]
    for path in (tmp_path / "deep" / "r").rglob("*"):
        assert path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("location", ["s3://key:secret@host/b", "gs://b", "AZ://b", "sftp://u@h/d"])
def test_an_object_store_is_refused_and_its_secrets_are_not_shown(location: str) -> None:
    with pytest.raises(SettingsInvalid, match="this version cannot use") as refused:
        open_store(location)
    assert "secret" not in str(refused.value) + refused.value.hint


@pytest.mark.parametrize("location", ["backups", "./b", "~/b", ""])
def test_a_path_that_depends_on_where_one_stands_is_refused(location: str) -> None:
    with pytest.raises(SettingsInvalid, match="absolute"):
        open_store(location)
