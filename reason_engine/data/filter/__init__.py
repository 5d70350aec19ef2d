"""Which rows stay: gates, declared rules, near-duplicates, contamination, language; and the report of `check`."""
