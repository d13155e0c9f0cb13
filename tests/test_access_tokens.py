"""Tokens: shown once, kept as hashes, good until they expire or are revoked."""

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mcp_backup.errors import SettingsInvalid, UsageError
from mcp_backup.tokens import TokenStore

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> TokenStore:
    return TokenStore(tmp_path / "state", clock)


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_a_token_is_kept_as_a_hash_in_a_file_of_its_owner_alone(store: TokenStore) -> None:
    text, made = store.create("laptop", ["read", "backup"], NOW + DAY, os.urandom)
    kept = store.path.read_text()
    assert text.split("_")[2] not in kept
    assert "laptop" in kept
    assert {stat.S_IMODE(path.stat().st_mode) for path in store.path.parent.iterdir()} == {0o600}
    assert store.find(text) == made
    assert made.scopes == ("read", "backup")


def test_only_the_whole_token_is_good_and_only_in_its_time(store: TokenStore, clock: Clock) -> None:
    text, _ = store.create("laptop", ["read"], NOW + DAY, os.urandom)
    last = "0" if text[-1] != "0" else "1"
    for wrong in ("", text[:-1], text[:-1] + last, text.upper(), f" {text}", f"{text}\n", "mcpb_"):
        assert store.find(wrong) is None
    clock.now = NOW + DAY - timedelta(seconds=1)
    assert store.find(text) is not None
    clock.now = NOW + DAY
    assert store.find(text) is None


def test_a_revoked_token_is_refused_at_once_by_those_who_read_the_file_before(
    store: TokenStore, clock: Clock
) -> None:
    text, made = store.create("laptop", ["read"], NOW + DAY, os.urandom)
    other, _ = store.create("phone", ["read"], NOW + DAY, os.urandom)
    assert store.find(text)
    [revoked] = TokenStore(store.path.parent, clock).revoke("laptop")
    assert (revoked.id, revoked.revoked) == (made.id, NOW)
    assert store.find(text) is None
    assert store.find(other) is not None
    with pytest.raises(UsageError, match="no token in force"):
        store.revoke("laptop")


def test_a_name_is_one_token_s_as_long_as_it_is_in_force(store: TokenStore) -> None:
    first, made = store.create("laptop", ["read"], NOW + DAY, os.urandom)
    with pytest.raises(UsageError, match="in force"):
        store.create("laptop", ["admin"], NOW + DAY, os.urandom)
    store.revoke(made.id)
    second, _ = store.create("laptop", ["read"], NOW + DAY, os.urandom)
    assert store.find(first) is None
    assert store.find(second) is not None
    for odd in ("", "../x", "a b", "-x", "x" * 65):
        with pytest.raises(UsageError, match="cannot be the name"):
            store.create(odd, ["read"], NOW + DAY, os.urandom)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"tokens": [{"id": 1}]}', b"\xff"])
def test_a_damaged_file_lets_nobody_in(store: TokenStore, content: bytes) -> None:
    text, _ = store.create("laptop", ["read"], NOW + DAY, os.urandom)
    store.path.write_bytes(content)
    with pytest.raises(SettingsInvalid, match="cannot be read"):
        store.find(text)
