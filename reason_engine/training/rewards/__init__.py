"""Reward models: outcome heads from pairs, process heads from labelled steps."""
