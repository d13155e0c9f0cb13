"""mcp-backup: backups of live databases and settings, in restic's format, proven to restore.

The names below are the Python API; they load on first use, since worker processes import this
package and must start quickly.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcp_backup.ecosystem import (
        AlertSettings,
        BackupMetadata,
        BackupStatus,
        BackupType,
        DatabaseBackupConfig,
        EcosystemBackupManager,
        RetentionTier,
    )

__version__ = "0.1.0"

__all__ = [
    "AlertSettings",
    "BackupMetadata",
    "BackupStatus",
    "BackupType",
    "DatabaseBackupConfig",
    "EcosystemBackupManager",
    "RetentionTier",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("mcp_backup.ecosystem"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
