"""The real restic is asked here too."""

from tests.interop.conftest import restic

__all__ = ["restic"]
