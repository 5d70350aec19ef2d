"""What goes over the wire between this engine and an endpoint: bodies out, streamed objects in, no connections."""
