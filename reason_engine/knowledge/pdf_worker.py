"""The process that reads one PDF: its bytes on standard input, a JSON list of the pages' texts on standard output.

Run as a file by its path, so that it imports nothing of this package. A PDF is a program of sorts: a hostile one may
ask for any amount of time and memory, so both are limited here, and the parent has a clock of its own.
"""

from __future__ import annotations

import io
import json
import logging
import sys

MEMORY, SECONDS = 2 << 30, 20
MOST = 4_000_000
"""Characters that are taken of one file."""


def main() -> None:
    """Read, or end with a message on standard error and the code 1."""
    _limit()
    from pypdf import PdfReader

    logging.disable()
    pages: list[str] = []
    left = MOST
    try:
        for page in PdfReader(io.BytesIO(sys.stdin.buffer.read())).pages:
            pages.append(page.extract_text()[:left])
            if (left := left - len(pages[-1])) <= 0:
                break
    except Exception as error:  # the boundary: whatever a broken file does to the reader is one line for the parent
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split())[:200])
    sys.stdout.buffer.write(json.dumps(pages).encode())


def _limit() -> None:
    try:
        import resource
    except ImportError:  # not on this system; the parent's clock still holds
        return
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))


if __name__ == "__main__":
    main()
