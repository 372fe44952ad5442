"""One small module a command; the only place that prints or exits."""

import gc

# A run makes some ten thousand objects that all stay: the collector would look at them over and over.
# Here, as the first modules to come make the most of them.
gc.set_threshold(100_000, 50, 50)

COMMANDS = {
    "run": "the whole job once: host keys and launch keys",
    "daemon": "what the unit starts: the job, then retries until an answer",
    "host-keys": "only the host keys; no network",
    "keys": "show which keys the metadata service offers; install nothing",
    "status": "what the last run did, and how things stand now",
    "audit": "check an image, or this system, against the guidelines",
    "seal": "make an image fit to share",
    "doctor": "would ssh NAME@here work with the launch key, and if not, why?",
    "known-hosts": "known_hosts lines for this host, or from saved console output",
    "authorized-keys": "print launch keys for sshd to ask for at each login",
    "config": "the effective settings, each with its file and line",
    "imds": "play the metadata service, for demos, tests and debugging",
    "demo": "show the main job on a scratch root, without root",
    "help": "explain a command, or list all of them",
    "version": "print the version",
}
