"""The report: true, self-contained, and safe with names that strangers chose."""

import json
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from msgspec.structs import replace

from mcp_backup.drill_facts import DrillRequest
from mcp_backup.errors import UsageError
from mcp_backup.proof.drill import drill
from mcp_backup.proof.objectives import METHOD
from mcp_backup.proof.report import ReportFacts, gathered, rendered, write_report
from mcp_backup.proof.report_style import STYLE
from mcp_backup.verbs import SourceFinding
from tests.system import SECRET, System

EVIL = "<script>alert(1)</script>|`x`"


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.fixture
async def facts(system: System) -> ReportFacts:
    async with system.engine() as engine:
        await drill(engine, DrillRequest(scenario="single-server"))
        return await gathered(engine)


def broken(facts: ReportFacts) -> ReportFacts:
    """The same, with a finding that tries to be markup."""
    record = facts.evidence.records[0]
    finding = SourceFinding(EVIL, "integrity", EVIL, EVIL)
    drilled = replace(record.drill, findings=(finding,), outcome="failed")
    evidence = replace(facts.evidence, records=(replace(record, drill=drilled),))
    recovery = replace(facts.recovery, failed=(EVIL,))
    return replace(facts, evidence=evidence, recovery=recovery)


async def test_it_says_what_is_proven_by_which_numbers(facts: ReportFacts, tmp_path: Path) -> None:
    for form in ("html", "md"):
        text = rendered(facts, form)
        assert "Proven restorable" in text
        assert METHOD_PART in text
        for name in ("notes", "tasks", "project"):
            assert name in text
        assert SECRET not in text
    write_report(tmp_path / "report.json", facts)
    document = json.loads((tmp_path / "report.json").read_text())
    assert [each["number"] for each in document["records"]] == [1]
    assert document["recovery"]["seconds"] == facts.recovery.seconds
    assert document["records"][0]["seal"] == facts.evidence.records[0].seal


METHOD_PART = "in start order and one after the other"


async def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(facts: ReportFacts) -> None:
    page = Page(rendered(facts, "html"))
    assert page.links == []
    assert not {"script", "img", "iframe", "link"} & set(page.tags)


async def test_what_strangers_named_is_no_markup(facts: ReportFacts) -> None:
    page = Page(rendered(broken(facts), "html"))
    assert "script" not in page.tags
    text = rendered(broken(facts), "md")
    assert "<script>" not in text
    assert "Not proven" in text


async def test_another_ending_is_refused_and_so_is_a_directory_that_is_not_there(
    facts: ReportFacts, tmp_path: Path
) -> None:
    for name in ("report.pdf", "nowhere/report.html"):
        with pytest.raises(UsageError, match="written"):
            write_report(tmp_path / name, facts)
    assert list(tmp_path.glob("report*")) == []


def test_the_sample_in_the_documentation_is_of_this_report() -> None:
    sample = (Path(__file__).parents[2] / "docs/sample-report.html").read_text()
    page = Page(sample)
    assert STYLE in sample
    assert escape(METHOD) in sample
    assert "Proven restorable" in sample
    assert page.links == []
