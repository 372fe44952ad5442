"""The instance metadata service: asking it, and playing it."""
