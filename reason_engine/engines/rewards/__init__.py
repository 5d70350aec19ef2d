"""Reward models of all kinds: their formats, the folders and endpoints that hold them. Never loads torch."""
