"""The settings that stand in the environment: `MCP_BACKUP_REPOSITORY__LOCATION` and the like.

Loaded only where there are any.
"""

import json
from collections.abc import Mapping
from typing import Any

from mcp_backup.errors import SettingsInvalid
from mcp_backup.settings import PREFIX, Written
from mcp_backup.settings_shape import bare, entries, entry, item

_TRUTH = {
    **dict.fromkeys(("1", "on", "t", "true", "y", "yes"), True),
    **dict.fromkeys(("0", "off", "f", "false", "n", "no"), False),
}


def read(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what the variables of these settings say, as tables; nothing is validated yet.

    A table may be given whole, and single settings of it beside that.

    Raises:
        SettingsInvalid: a list or a table is not JSON.
    """
    tables: dict[str, Any] = {}
    for name in sorted(environ, key=lambda name: name.count("__")):  # whole tables first
        *keys, last = name.lower().removeprefix(PREFIX.lower()).split("__")
        table, declared = tables, Written
        for key in keys:
            inner = table.get(key)
            table[key] = table = inner if isinstance(inner, dict) else {}
            declared = _declared(declared, key)
        table[last] = _value(last, environ[name], _declared(declared, last))
    return tables


def _declared(declared: Any, key: str) -> Any:
    """Return what the setting `key` of a table has to be; `None` where there is no such thing."""
    field = entries(declared).get(key)
    return field.type if field else entry(declared)


def _value(name: str, text: str, declared: Any) -> Any:
    kind, _ = bare(declared)
    if entries(kind) or item(kind) is not None or entry(kind) is not None:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise SettingsInvalid(
                f"the environment: {name} is not JSON",
                hint=f"Lists and tables are given as JSON: {PREFIX}DATABASES='[{{...}}]'.",
            ) from None
    if kind is bool:
        return _TRUTH.get(text.strip().lower(), text)
    try:
        return kind(text) if kind in (int, float) else text
    except ValueError:
        return text
