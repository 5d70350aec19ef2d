"""Checkpoint and adapter folders as files: found, described and checked before a tensor is read."""
