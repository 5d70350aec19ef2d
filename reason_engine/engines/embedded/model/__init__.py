"""The decoder in torch: its shape and weights, quantised matrices, adapters, and side networks over its states."""
