"""A process that stages the latest backup's database and does nothing else.

    python -m benchmarks.staging SETTINGS OUT

What `restic restore` and `borg extract` do; the product itself always examines what it staged. It
starts as a restore from the terminal does: workers load beside the program.
"""

import gc
import sys
from importlib import import_module
from pathlib import Path

from mcp_backup.__main__ import begin_workers
from mcp_backup.worker_processes import end_ahead

if __name__ == "__main__":
    gc.disable()
    begin_workers(["restore"])
    import_module("benchmarks.staged").main(Path(sys.argv[1]), Path(sys.argv[2]))
    end_ahead()
