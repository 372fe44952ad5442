"""Effects on a machine, each kind at one door."""
