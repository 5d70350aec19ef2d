"""Server-sent events of one answer, and work that ends with its client."""
