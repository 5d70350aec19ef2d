"""What can be seen of a run while it goes and afterwards: figures elsewhere, samples, curves, a page."""
