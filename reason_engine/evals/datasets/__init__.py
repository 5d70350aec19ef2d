"""Public data sets and the user's own rows as tasks, one file each."""
