"""One small module a command; the only place that prints or exits."""

import gc

# A run makes some ten thousand objects that all stay: the collector would look at them over and over.
# Here, as the first modules to come make the most of them.
gc.set_threshold(100_000, 50, 50)
