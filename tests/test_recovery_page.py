"""The page of a recovery kit: what is on it comes off it again, or what is wrong is said."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.errors import UsageError
from mcp_backup.recovery_page import Kit, KitSource, html_page, parse_page, text_page

KIT = Kit(
    location="/srv/back ups",
    repository_id="ab" * 32,
    password="<correct> & 'horse' \"staple\": $HOME `id`",  # noqa: S106 - of no repository
    key_id="cd" * 32,
    made=datetime(2026, 11, 24, 17, 0, tzinfo=UTC),
    hostname="here",
)
Layout = Callable[[Kit], str]
LAYOUTS = [text_page, html_page]
printable = st.text(min_size=1, max_size=60).filter(
    lambda text: text.isprintable() and text == text.strip() and "  " not in text
)


@pytest.mark.parametrize("page", LAYOUTS)
@given(password=printable, location=printable)
def test_what_is_printed_can_be_read_back(page: Layout, password: str, location: str) -> None:
    kit = Kit(location, "ab" * 32, password, "cd" * 32, KIT.made, "here")
    assert parse_page(page(kit)) == kit


@given(st.one_of(st.text(), st.lists(st.sampled_from(text_page(KIT).splitlines())).map("\n".join)))
def test_any_other_text_is_a_kit_or_a_usage_error(page: str) -> None:
    try:
        kit = parse_page(page)
    except UsageError:
        return
    assert kit.password == KIT.password


@pytest.mark.parametrize("page", LAYOUTS)
def test_a_character_mistyped_is_found_by_the_check_code(page: Layout) -> None:
    with pytest.raises(UsageError, match="check code"):
        parse_page(page(KIT).replace("horse", "h0rse"))


def test_a_page_needs_nothing_but_itself_and_stays_one_page() -> None:
    sources = tuple(KitSource(f"databases/{n}", f"/srv/{n}\n.db") for n in range(100))
    kit = replace(KIT, sources=sources)
    for page in (text_page(kit), html_page(kit)):
        assert "and 84 more" in page
        assert len(page.splitlines()) < 75
    assert not {"<script", "src=", "href=", "url("} & set(html_page(kit).lower().split())
    assert "http" not in html_page(kit).replace("https://restic.net", "")


def test_the_check_code_is_what_the_printed_command_prints() -> None:
    lines = [line.strip() for line in text_page(KIT).splitlines()]
    script = [line for line in lines if line.startswith(("export ", "printf "))]
    ran = subprocess.run(
        ["sh", "-c", "\n".join(script)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == KIT.code
    assert f"Check code: {KIT.code}" in lines
