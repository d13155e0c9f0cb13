"""Databases that the program around an engine has open itself, and hands out copies of."""

from collections.abc import Mapping

from mcp_backup.backup.handouts import Handout, register
from mcp_backup.engine import Engine
from mcp_backup.errors import SettingsInvalid, UnknownSource

__all__ = ["Handout", "hand_out"]


def hand_out(engine: Engine, handouts: Mapping[str, Handout]) -> None:
    """Have the engine capture these databases from copies that the functions write.

    Raises:
        UnknownSource: the settings have no database of that name.
        SettingsInvalid: its kind is left out, so that telling it would open the file.
    """
    databases = {database.name: database for database in engine.settings.databases}
    for name in handouts:
        if name not in databases:
            raise UnknownSource(name, sorted(databases))
        if databases[name].kind is None:
            raise SettingsInvalid(
                f"source {name!r} is handed out by its program, and has no `kind`",
                hint="Name its `kind` in the settings: telling it from the file would open it.",
            )
    register(engine.repository, dict(handouts))
