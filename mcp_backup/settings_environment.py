"""The settings that stand in the environment: `MCP_BACKUP_REPOSITORY__LOCATION` and the like.

Loaded only where there are any.
"""

from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from mcp_backup.errors import SettingsInvalid
from mcp_backup.settings import PREFIX, Settings


class _Readable(Settings, BaseSettings):
    """The settings, in the form that the library reads variables by; there is never one."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", defer_build=True
    )


class _Environment(EnvSettingsSource):
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(_Readable)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._environ.items()}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            raise SettingsInvalid(
                f"the environment: {field_name.lower()} is not JSON",
                hint=f"Lists and tables are given as JSON: {PREFIX}DATABASES='[{{...}}]'.",
            ) from None


def read(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what the variables of these settings say, as tables; nothing is validated yet.

    Raises:
        SettingsInvalid: a list or a table is not JSON.
    """
    return _Environment(environ)()
