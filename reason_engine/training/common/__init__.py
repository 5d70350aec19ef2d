"""What every method shares: models, encoding, forward passes, optimisers, checkpoints, processes, preflight."""
