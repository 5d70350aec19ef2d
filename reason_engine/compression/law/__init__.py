"""The P2 law of post-training after pruning, fitted to the points of a user's own runs."""
