"""Fewer bits a weight: W8A8, GPTQ, and quantisation-aware training."""
