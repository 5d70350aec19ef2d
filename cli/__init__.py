"""The `reason` command: one file a command, no logic beyond wiring. Installed as `reason_engine.cli`."""
