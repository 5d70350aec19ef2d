"""The OpenAI-compatible routes: requests checked, run through one pipeline, and answered."""
