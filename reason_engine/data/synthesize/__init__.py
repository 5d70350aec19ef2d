"""Rows that a teacher model writes: solutions, new problems, rewritten questions; journals that survive a kill."""
