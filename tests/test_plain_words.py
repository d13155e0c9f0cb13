"""What is taken without typer's help is what typer would have made of it."""

import contextlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer

from mcp_backup.cli.plain import PlainCommand, PlainGroup


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


def outcome(words: list[str], *, plain: bool) -> object:
    """Return what the command was called with, or what was said of its words."""
    program = typer.Typer(cls=PlainGroup) if plain else typer.Typer()
    called: list[dict[str, Any]] = []

    @program.callback()
    def everything() -> None:
        pass

    @program.command("go", cls=PlainCommand if plain else None)
    def go(  # noqa: PLR0913 - one of every kind
        place: Annotated[str, typer.Argument()],
        *,
        count: Annotated[int, typer.Option(min=1, max=9)] = 2,
        port: int | None = None,
        share: Annotated[float, typer.Option(min=0.5)] = 1,
        names: Annotated[list[str] | None, typer.Option()] = None,
        counts: Annotated[list[int] | None, typer.Option(max=9)] = None,
        colour: Colour = Colour.RED,
        other: Colour | None = None,
        form: Annotated[Literal["sql", "tar"], typer.Option()] = "tar",
        file: Path | None = None,
        there: Annotated[Path | None, typer.Option(exists=True)] = None,
        flag: bool = False,
    ) -> None:
        called.append(dict(locals()))

    try:
        with contextlib.redirect_stdout(None):
            program(["go", *words], standalone_mode=False)
    except typer.TyperException as error:
        return error.format_message()
    (values,) = called
    return {name: (type(value), value) for name, value in values.items() if name != "called"}


@pytest.mark.parametrize(
    "words",
    [
        "here",
        "",
        "here --count 9 --port 0 --share 0.5 --flag",
        "here --count 10",
        "here --count 0",
        "here --count many",
        "here --count 1.5",
        "here --count 4.0",
        "here --count 1_0",
        "here --port -1",
        "here --port=",
        "here --share 0.4",
        "here --share nan",
        "here --share inf",
        "here --share 1e1",
        "here --names a --names b --counts 1 --counts 2",
        "here --counts 10",
        "here --counts x",
        "here --colour blue --other red --form sql --no-flag",
        "here --colour Blue",
        "here --other green",
        "here --form zip",
        "here --file nowhere/at/all",
        "here --file /",
        "here --there /",
        "here --there /nowhere/at/all",
        "here --unknown",
    ],
)
def test_words_become_what_typer_makes_of_them(words: str) -> None:
    assert outcome(words.split(), plain=True) == outcome(words.split(), plain=False)
