"""One small module a command; the only place that prints or exits."""

import gc

# A run makes some ten thousand objects that all stay: the collector would look at them over and over.
# Here, as the first modules to come make the most of them.
gc.set_threshold(100_000, 50, 50)

# What every command takes: options with a value, those without, and what holds where none is given.
COMMON_VALUES = {"--root": "root", "--config": "config", "--imds": "imds"}
COMMON_FLAGS = {"-v": "verbose", "--verbose": "verbose", "-q": "quiet", "--quiet": "quiet"}
COMMON_DEFAULTS = {"root": "/", "config": None, "imds": None, "verbose": False, "quiet": False}
