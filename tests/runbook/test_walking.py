"""Walking a page: at the table, as a drill, and live; asked before live data is changed."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mcp_backup.errors import RestoreDeclined, UsageError
from mcp_backup.proof.walks import last_walk, read_walks
from mcp_backup.runbook.filling import refuse_stranger
from mcp_backup.runbook.pages import Page, page, parse, timed
from mcp_backup.runbook.shell import Shell, shell
from mcp_backup.runbook.walking import Mode, Walker, keep_record, lines_of

PAGE = parse(
    "page",
    """\
# A page

## 1. Look

```console
$ cd {{place}} && export GREETING=hello
$ echo "$GREETING at $(pwd)"
hello at {{place}}
$ echo made thing_7
made {{thing?}}
```

## 2. Change

```console changes
$ touch {{thing}} && echo changed
changed
```

## 3. If it is gone

```console changes when=gone
$ rm {{thing}}
```

## 4. Look again

```console broken
$ ls
thing_7
```
""",
)


class Person:
    """Somebody with answers."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.has_person = bool(answers)
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)

    def ask(self, question: str) -> str:
        self.told.append(question)
        return self.answers.pop(0)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "a place with blanks; and more"
    made.mkdir()
    return made


@pytest.fixture
def inner(tmp_path: Path) -> Iterator[Shell]:
    with shell(tmp_path, os.environ) as made:
        yield made


def walker(
    person: Person, mode: Mode, place: Path, *, yes: bool = False, applies: tuple[str, ...] = ()
) -> Walker:
    values = {"place": str(place)}
    return Walker(person, values, mode, lambda: datetime.now(UTC), yes, applies)


def walked(found: Walker, inner: Shell, page: Page = PAGE) -> list[tuple[int, str]]:
    return [(step.block, step.outcome) for step in found.walk(page, inner).steps]


def test_live_runs_what_is_printed_after_a_yes(place: Path, inner: Shell) -> None:
    person = Person("yes", "n")
    assert walked(walker(person, "live", place), inner) == [
        *[(1, "as printed")] * 3,
        (2, "as printed"),
        (4, "as printed"),
    ]
    assert (place / "thing_7").exists()
    assert "This changes live data. Run it? [yes/N]" in person.told


@pytest.mark.parametrize("answers", [("no",), ("y",), ("",), ()])
def test_without_a_full_yes_nothing_is_changed(
    place: Path, inner: Shell, answers: tuple[str, ...]
) -> None:
    with pytest.raises(RestoreDeclined, match="block 2 of page") as declined:
        walked(walker(Person(*answers), "live", place), inner)
    assert ("nobody is there to ask" in str(declined.value)) == (not answers)
    assert list(place.iterdir()) == []


def test_sections_that_apply_are_walked_as_well(place: Path, inner: Shell) -> None:
    found = walker(Person(), "live", place, yes=True, applies=("gone",)).walk(PAGE, inner)
    assert [step.block for step in found.steps] == [1, 1, 1, 2, 3, 4]
    assert found.steps[-1].outcome == "different"  # as it is gone
    assert not found.complete


def test_a_drill_runs_what_only_looks(place: Path, inner: Shell) -> None:
    assert walked(walker(Person(), "drill", place), inner) == [
        *[(1, "as printed")] * 3,
        (2, "not run"),
        (4, "not run"),
    ]
    assert list(place.iterdir()) == []


def test_at_the_table_nothing_is_run_and_notes_are_kept(place: Path, inner: Shell) -> None:
    person = Person("", "who has the key?", "", "", "")
    found = walker(person, "tabletop", place).walk(PAGE, inner)
    assert {step.outcome for step in found.steps} == {"talked through"}
    assert "who has the key?" in [step.why for step in found.steps]
    assert any("touch <thing>" in line for line in person.told)
    assert "== 2. Change" in person.told  # a line of its own: what is told holds no line ends
    assert not any("\n" in line for line in person.told)
    assert list(place.iterdir()) == []


def test_the_first_thing_that_is_not_as_printed_stops_the_walk(place: Path, inner: Shell) -> None:
    page = parse(
        "p", "# P\n\n```console\n$ echo one\ntwo\n```\n\n```console changes\n$ touch x\n```\n"
    )
    person = Person("yes")
    found = walker(person, "live", place).walk(page, inner)
    assert [step.outcome for step in found.steps] == ["different"]
    assert not found.complete
    assert any("expected: two" in line for line in person.told)
    assert "NOT TO ITS END" in lines_of(found)[-1]


def test_another_exit_code_than_the_page_says_stops_the_walk_whatever_is_printed(
    place: Path, inner: Shell
) -> None:
    page = parse("p", "# P\n\n```console\n$ echo one; (exit 3)\none\n$ echo two\ntwo\n```\n")
    found = walker(Person(), "live", place, yes=True).walk(page, inner)
    assert [step.outcome for step in found.steps] == ["different"]
    assert found.steps[0].why == "it ended with 3, and the page says 0"


def test_what_a_command_leaves_running_is_not_waited_for(place: Path, inner: Shell) -> None:
    page = parse("p", "# P\n\n```console\n$ sleep 300 & echo $!\n{{pid?}}\n```\n")
    found = walker(Person(), "live", place, yes=True)
    walk = found.walk(page, inner)
    os.kill(int(found.values["pid"]), 9)
    assert walk.complete
    assert walk.seconds < 250


def test_the_times_are_kept(place: Path, inner: Shell, tmp_path: Path) -> None:
    walk = walker(Person(), "drill", place).walk(PAGE, inner)
    keep_record(tmp_path / "state", walk)
    keep_record(tmp_path / "state", walk)
    lines = (tmp_path / "state/runbook.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in lines]
    assert [each["page"] for each in kept] == ["page", "page"]
    assert [each.steps for each in read_walks(tmp_path / "state")] == [len(walk.steps)] * 2
    assert kept[0]["steps"][0]["seconds"] == walk.steps[0].seconds


def test_what_asks_sqlite_is_not_run_on_a_source_of_another_kind() -> None:
    for name, kind in (("data-loss", "duckdb"), ("database-corruption", "files")):
        with pytest.raises(UsageError, match=f"page {name} asks SQLite, and source 'x' is"):
            refuse_stranger(page(name), {"source": "x", "kind": kind})
        refuse_stranger(page(name), {"source": "x", "kind": "sqlite"})
    refuse_stranger(page("single-server"), {"source": "x", "kind": "postgres"})


def test_a_walk_is_told_in_short_with_where_it_stopped(place: Path, inner: Shell) -> None:
    well = walker(Person(), "drill", place).walk(PAGE, inner).report()
    assert (well.complete, well.different, well.stopped, well.steps) == (True, False, "", 5)
    gone = walker(Person(), "live", place, yes=True, applies=("gone",)).walk(PAGE, inner).report()
    assert (gone.complete, gone.different) == (False, True)
    assert gone.stopped.startswith("stopped in 4. Look again: ")
    found = walker(Person("no"), "live", place)
    declined = found.begun(PAGE)
    with pytest.raises(RestoreDeclined):
        found.walk(PAGE, inner, declined)
    assert (declined.report().different, declined.report().stopped) == (
        False,
        "stopped after 1. Look",
    )


def test_a_page_tells_its_last_walk_with_commands_and_what_each_section_took(
    place: Path, inner: Shell, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    assert last_walk(read_walks(state), "page") is None
    keep_record(state, walker(Person(), "drill", place).walk(PAGE, inner))
    keep_record(state, walker(Person(), "tabletop", place).walk(PAGE, inner))
    stopped = walker(Person(), "live", place, yes=True, applies=("gone",)).walk(PAGE, inner)
    keep_record(state, stopped)
    last = last_walk(read_walks(state), "page")
    assert last is not None
    assert (last.mode, list(last.sections)) == ("drill", ["1. Look"])
    text = timed(PAGE.text, {"1. Look": 12.34})
    assert "## 1. Look\n\n(The commands here took 12.3 s in the last walk.)\n" in text
    assert text.count("The commands here") == 1
