"""Facts of a capture that a stranger wrote: refused by name, by every kind, and nothing ends badly.

The copies are genuine. Of their facts each member in turn gets an odd value, or is left out.
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from mcp_backup.errors import IntegrityError, SourceUnreadable
from mcp_backup.sources.kinds import kind
from mcp_backup.sources.postgres_beside import prepare
from mcp_backup.sources.source import Evidence, SourceSpec
from tests.duckdb.ducks import FILL, make, source
from tests.hostile.test_forged_backups import ODD, paths_in
from tests.postgres.conftest import Live
from tests.postgres.conftest import live as live
from tests.postgres.conftest import server as server
from tests.sources.round_trip import captured, staged_copy
from tests.workflows.conftest import Keeper
from tests.workflows.conftest import daemon as daemon
from tests.workflows.conftest import keeper as keeper


@dataclass(frozen=True)
class Copy:
    """A staged copy of a source, and what its capture saw."""

    spec: SourceSpec
    directory: Path
    evidence: Evidence


@pytest.fixture(params=["duckdb", "postgres", "workflows"])
def copied(request: pytest.FixtureRequest, tmp_path: Path) -> Copy:
    if request.param == "duckdb":
        make(tmp_path / "shards" / "a.duckdb", *FILL)
        make(tmp_path / "shards" / "b.duckdb", "CREATE TABLE empty (n INTEGER)")
        spec = source(tmp_path / "shards")
    elif request.param == "postgres":
        live: Live = request.getfixturevalue("live")
        spec = live.spec()
    else:
        keeper: Keeper = request.getfixturevalue("keeper")
        spec = keeper.source().spec()
    found = captured(spec, tmp_path)
    return Copy(spec, staged_copy(found, tmp_path), found.evidence)


def forgeries(facts: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Facts with a member exchanged or left out; of long lists, the first few."""
    seen: dict[tuple[Any, ...], int] = {}
    for number, path in enumerate(paths_in(facts)):
        kin = (*path[:-1], type(value_at(facts, path)).__name__)
        seen[kin] = seen.get(kin, 0) + 1
        if seen[kin] > 2:
            continue
        for odd in (ODD[number % len(ODD)], ODD[(number + 5) % len(ODD)], ...):
            forged = copy.deepcopy(facts)
            place = value_at(forged, path[:-1])
            if odd is ...:
                del place[path[-1]]
            else:
                place[path[-1]] = odd
            yield f"{path}: {odd!r}", forged


def value_at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def test_facts_with_any_member_exchanged_are_compared_or_refused(copied: Copy) -> None:
    """Where they are no facts, by the error that says so; never by one of the language's own."""
    asked, refusals = kind(copied.spec.kind), list[tuple[str, IntegrityError]]()
    facts = json.loads(json.dumps(copied.evidence.facts))
    for what, forged in forgeries(facts):
        try:
            asked.examine(copied.directory, replace(copied.evidence, facts=forged))
        except IntegrityError as error:
            refusals.append((what, error))
    assert len(refusals) > 10
    for what, refusal in refusals:
        assert "the evidence is none" in str(refusal), what
        assert refusal.hint


def test_no_database_is_made_by_facts_that_are_none(live: Live, tmp_path: Path) -> None:
    found = captured(live.spec(), tmp_path)
    directory = staged_copy(found, tmp_path)
    about = found.evidence.facts["database"]
    odd_ones: list[dict[str, Any]] = [
        {"settings": [["", 7]]},
        {"connection_limit": "many"},
        {"grants": {}},
    ]
    for odd in odd_ones:
        facts = {**found.evidence.facts, "database": {**about, **odd}}
        with pytest.raises(IntegrityError, match="'database' are"):
            prepare(live.spec(), directory, replace(found.evidence, facts=facts))
    assert live.beside() == []


def test_a_link_among_documents_gives_nothing_of_ours_to_their_server(
    keeper: Keeper, tmp_path: Path
) -> None:
    """It would lead to a file of settings, and so to a document that is sent."""
    spec = keeper.source().spec()
    directory = staged_copy(captured(spec, tmp_path), tmp_path)
    (tmp_path / "secret.json").write_text('{"id": "deploy", "token": "of ours"}')
    (directory / "deploy.json").unlink()
    (directory / "deploy.json").symlink_to(tmp_path / "secret.json")
    keeper.put("deploy", None)
    before = keeper.document()
    with pytest.raises(SourceUnreadable, match=r"deploy\.json is no file"):
        kind("workflows").place(spec, directory)
    assert keeper.document() == before
