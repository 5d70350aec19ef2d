"""The operator's side: adapters, metrics, and the page."""
