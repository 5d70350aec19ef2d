"""What the searches over steps share: steps and their ends, values, the tree and its mathematics, simulations."""
