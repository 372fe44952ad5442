"""The main job: host keys and launch keys on a fresh instance."""
