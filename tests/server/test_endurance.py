"""A server stays as small as it began. The full length is a command: see benchmarks/README.md."""

import sys
from pathlib import Path

import pytest

from benchmarks.endurance import endure


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_calls_and_backups_leave_nothing_behind_in_the_server(tmp_path: Path) -> None:
    """Descriptors and threads do not grow at all, memory by no more than an allocator's noise."""
    for each in endure(calls=120, backups=12, directory=tmp_path):
        assert each.flat, each
        assert each.last.descriptors <= each.first.descriptors + 2, each
        assert each.last.threads <= each.first.threads + 4, each
