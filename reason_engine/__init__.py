"""Reason Engine."""
