"""What a pass of training is made of: rows without padding, the vocabulary in chunks, fused layers."""
