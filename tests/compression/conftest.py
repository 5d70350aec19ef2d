"""What the tests of compression share."""

from tests.cli.conftest import reason

__all__ = ["reason"]
