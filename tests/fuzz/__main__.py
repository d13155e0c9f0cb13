"""Fuzz one decoder with atheris, which follows the code's branches. Not part of CI.

    pip install atheris
    python -m tests.fuzz manifest -max_total_time=60 CORPUS_DIRECTORY

A finding ends it with a traceback, and leaves the input as `crash-...` in the working directory.
"""

import sys
from importlib import import_module


def main() -> None:
    """Run until a finding, or as long as libFuzzer's own arguments say."""
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=["mcp_backup", "json"]):
        targets = import_module("tests.fuzz.targets")
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, lambda data: targets.try_target(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
