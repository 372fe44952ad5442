"""The EC2 instance metadata service, played on a port of your own: for demos, tests and debugging.

`rules` says how the real service answers, `faults` what can go wrong on the way, `server` puts both on a
socket. Nothing of the rest of firstkey is used, so that the emulator and the client cannot share a mistake.
"""

from __future__ import annotations

from firstkey.metadata.emulator.faults import FAULTS, Fault, Kind, usage
from firstkey.metadata.emulator.rules import IMITATIONS, Settings
from firstkey.metadata.emulator.server import Asked, Emulator

__all__ = ["FAULTS", "IMITATIONS", "Asked", "Emulator", "Fault", "Kind", "Settings", "usage"]
