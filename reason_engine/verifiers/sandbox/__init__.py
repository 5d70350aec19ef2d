"""Runs programs that nobody trusts, each in processes of its own that can reach nothing."""
