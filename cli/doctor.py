"""`reason doctor`: what this machine has, and so what works on it."""

from __future__ import annotations

import typer

from reason_engine.cli._options import AsJson, show


def add_to(app: typer.Typer) -> None:
    app.command("doctor", help="Say what works on this machine.")(doctor)


def doctor(
    port: int = typer.Option(8000, min=1, max=65535, help="The port that should be free."),
    as_json: AsJson = False,
) -> None:
    """Check the machine; exits 1 where not even the bundled model can be served."""
    from reason_engine.cli._machine import examine

    found = examine(port)
    if as_json:
        show(
            {
                "ok": all(check.ok for check in found if check.needed),
                "checks": [check.to_json() for check in found],
            }
        )
    else:
        for check in found:
            print(
                f"{'ok  ' if check.ok else ('FAIL' if check.needed else '-   ')} {check.name:<12} {check.detail}"
            )
    if not all(check.ok for check in found if check.needed):
        raise typer.Exit(1)
