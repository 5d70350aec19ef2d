"""One reader for every file kind and row format; typed rows, and the examples that generators write."""
