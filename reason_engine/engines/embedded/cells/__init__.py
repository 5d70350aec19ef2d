"""Keys and values: what is kept of a sequence, who shares it, and attention over it. A cell is those of one token."""
