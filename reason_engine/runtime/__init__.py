"""What runs a strategy: budget, context, events, trace and `solve`."""
