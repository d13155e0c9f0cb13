"""The evidence: nothing on record changes, goes or moves without being noticed."""

import hashlib
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_backup.drill_facts import DrillRequest
from mcp_backup.errors import HistoryUnusable
from mcp_backup.format.key import generate_master_key
from mcp_backup.proof.drill import drill, ledger_of
from mcp_backup.proof.evidence import Ledger
from mcp_backup.status import status
from tests.system import System

ONE = DrillRequest(("notes",), "single-server")
Lines = list[bytes]


def changed(lines: Lines) -> Lines:
    return [lines[0], lines[1].replace(b'"outcome":"proven"', b'"outcome":"failed"'), lines[2]]


def resealed(lines: Lines) -> Lines:
    """Changed by somebody who knows how digests are made, and has no key."""
    fields = json.loads(changed(lines)[1])
    record = {name: fields[name] for name in ("number", "previous", "drill")}
    plain = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    fields["digest"] = hashlib.sha256(plain).hexdigest()
    return [lines[0], json.dumps(fields).encode(), lines[2]]


@pytest.mark.parametrize(
    ("tamper", "said", "left"),
    [
        (changed, "record 2 of the evidence was changed", 2),
        (resealed, "record 2 of the evidence was changed", 2),
        (lambda lines: [lines[0], lines[2]], "record 3 of the evidence does not follow", 2),
        (lambda lines: [lines[0], lines[2], lines[1]], "does not follow", 3),
        (lambda lines: [lines[0], b"{broken", lines[2]], "line 2 of the evidence is no record", 2),
    ],
)
async def test_what_was_tampered_with_is_told_and_not_believed(
    system: System, tamper: Callable[[Lines], Lines], said: str, left: int
) -> None:
    async with system.engine() as engine:
        report, ledger = await drill(engine, ONE), ledger_of(engine)
        for _ in range(2):
            await ledger.append(report)
        whole = await ledger.read()
        assert (len(whole.records), whole.problems) == (3, ())
        assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600

        lines = ledger.path.read_bytes().splitlines()
        ledger.path.write_bytes(b"\n".join(tamper(lines)) + b"\n")

        found = await ledger.read()
        assert said in found.problems[0]
        assert len(found.records) == left
        assert (await status(engine, around=False)).health == "at risk"
        await ledger.append(report)  # goes on, and the break stays visible
        assert (await ledger.read()).problems


async def test_half_a_line_that_a_crash_left_costs_that_record_only(system: System) -> None:
    async with system.engine() as engine:
        await drill(engine, ONE)
        ledger = ledger_of(engine)
        with ledger.path.open("ab") as file:
            file.write(ledger.path.read_bytes()[:100])
        await drill(engine, ONE)
        assert len((await ledger.read()).records) == 2


async def test_another_key_made_none_of_it(system: System, tmp_path: Path) -> None:
    async with system.engine() as engine:
        await drill(engine, ONE)
        directory = ledger_of(engine).path.parent
        other = Ledger(directory, generate_master_key(lambda size: b"\1" * size))
        assert (await other.read()).records == ()


async def test_a_drill_whose_evidence_cannot_be_written_is_an_error(system: System) -> None:
    async with system.engine() as engine:
        ledger_of(engine).path.mkdir()
        with pytest.raises(HistoryUnusable):
            await drill(engine, ONE)


async def test_what_was_cut_off_the_end_is_missed(system: System) -> None:
    async with system.engine() as engine:
        await drill(engine, ONE)
        ledger = ledger_of(engine)
        first = ledger.path.read_bytes()
        await drill(engine, ONE)
        ledger.path.write_bytes(first)
        assert (await ledger.read()).problems == ()  # the chain does not tell
        report = await status(engine, around=False)
        ledger.path.unlink()
        emptied = await status(engine, around=False)
    said = "record 2 of the evidence is missing: the last there is, is"
    assert report.health == "at risk"
    assert any(f"{said} 1" in reason for reason in report.reasons)
    assert any(f"{said} none" in reason for reason in emptied.reasons)
