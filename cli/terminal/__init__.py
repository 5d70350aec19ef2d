"""What the commands share: options, asking a model or a server, and drawing a trace as a tree."""
