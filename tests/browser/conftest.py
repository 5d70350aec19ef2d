"""The server on the scripted engine, which echoes what it is asked."""

from tests.cli.conftest import server as server
