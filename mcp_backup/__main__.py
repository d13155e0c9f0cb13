"""`python -m mcp_backup`, and the `mcp-backup` script."""

import sys

from mcp_backup.cli.app import run


def main() -> None:
    """Run the program on the process's arguments and exit with its code."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
