"""What the program was started in, read once, at the edge."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from mcp_backup.terminal import Terminal


class Surroundings(Struct, frozen=True):
    """What the program was started in. `config` is the settings file named, if one was."""

    terminal: Terminal
    config: Path | None
    environ: Mapping[str, str]
    cwd: Path
    home: Path
    user: str
