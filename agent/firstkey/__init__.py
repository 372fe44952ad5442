"""firstkey: the first SSH access to a fresh EC2 instance, and images clean enough to share."""

__version__ = (
    "0.1.0"  # the one source: pyproject.toml, the spec and the Debian changelog are held to it by a test
)
