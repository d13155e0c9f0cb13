"""What the program was started in, read once, at the edge."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mcp_backup.terminal import Terminal


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the program was started in. `config` is the settings file named, if one was."""

    terminal: Terminal
    config: Path | None
    environ: Mapping[str, str]
    cwd: Path
    home: Path
    user: str
