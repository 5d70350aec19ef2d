"""Speculative drafts that every engine shares: the suffix automaton and the texts it draws from."""
