"""Fewer weights: structured and unstructured pruning, layer by layer, and recovery by distillation."""
