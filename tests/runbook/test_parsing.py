"""Pages as they are read, and output as it is compared."""

import pytest

from mcp_backup.errors import UsageError
from mcp_backup.runbook.matching import matched
from mcp_backup.runbook.pages import OTHER_PAGES, SCENARIO_PAGES, filled, page, parse

PAGE = """\
# A page

Words.

## One

```console changes when=gone exit=3
$ first {{path}}
it says …
$ second
```

```text
$ not a command
```

## Two

```console broken
$ while true; do
>   third
> done
{{id?}} is made
```
"""


def test_a_page_is_its_sections_and_their_blocks() -> None:
    found = parse("a", PAGE)
    assert found.title == "A page"
    assert [section.title for section in found.sections] == ["A page", "One", "Two"]
    first, second = found.blocks
    assert (first.changes, first.when, first.broken) == (True, "gone", False)
    assert [command.text for command in first.commands] == ["first {{path}}", "second"]
    assert [command.exit_code for command in first.commands] == [0, 3]
    assert first.commands[0].needs() == {"path"}
    assert (second.broken, second.number) == (True, 2)
    assert second.commands[0].text == "while true; do\n  third\ndone"
    assert second.commands[0].expected == ("{{id?}} is made",)


@pytest.mark.parametrize("text", ["# A\n```console\n$ x\n", "# A\n```console\nno prompt\n```\n"])
def test_a_page_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse("a", text)


@pytest.mark.parametrize(
    ("expected", "output", "found"),
    [
        ([], "", {}),
        ([], "something\n", None),
        (["…"], "", {}),
        (["…"], "any\nlines\n", {}),
        (["a …", "…", "z"], "a b c\nd\ne\nz\n", {}),
        (["a …"], "b c\n", None),
        (["NAME  SIZE"], "NAME    SIZE  \n", {}),
        (["made {{id?}} now"], "made backup_1 now", {"id": "backup_1"}),
        (["{{known}} is whole"], "notes.db is whole", {}),
        (["{{known}} is whole"], "notesxdb is whole", None),
        (["{{unknown}} is whole"], "anything is whole", {}),
        (["costs 1.5 (about)"], "costs 1x5 (about)", None),
    ],
)
def test_output_is_compared_with_what_is_printed(
    expected: list[str], output: str, found: dict[str, str] | None
) -> None:
    assert matched(expected, output, {"known": "notes.db"}) == found


def test_what_is_not_known_stays_as_a_name_to_look_up() -> None:
    assert filled("{{a}} {{b}} {{c?}}", {"a": "1", "c": "3"}) == "1 <b> <c>"


@pytest.mark.parametrize("name", SCENARIO_PAGES)
def test_each_scenario_has_all_that_is_needed_at_night(name: str) -> None:
    found = page(name)
    titles = " | ".join(section.title for section in found.sections)
    for needed in (
        "Before you begin",
        "Verify the failure",
        "Find the cause",
        "Choose the backup",
        "Verify",
        "Start, in order",
        "Rollback, if recovery fails",
        "Done when",
    ):
        assert needed in titles, needed
    assert "Stop" in titles
    assert "{{order}}" in found.text
    assert any(block.changes for block in found.blocks)


def test_there_is_no_page_but_these() -> None:
    for name in (*SCENARIO_PAGES, *OTHER_PAGES):
        assert page(name).title
    for wrong in ("../README", "nothing"):
        with pytest.raises(UsageError, match="no page"):
            page(wrong)
