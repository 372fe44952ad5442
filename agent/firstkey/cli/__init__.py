"""One small module a command; the only place that prints or exits."""
