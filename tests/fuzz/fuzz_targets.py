"""All targets by their names, which are also those of the directories of `corpus/`."""

from __future__ import annotations

from pathlib import Path

import fuzz_keys
import fuzz_network
import fuzz_state
import fuzz_system
from fuzz_oracle import Target

CORPUS = Path(__file__).with_name("corpus")
TARGETS: dict[str, Target] = {
    **fuzz_keys.TARGETS,
    **fuzz_system.TARGETS,
    **fuzz_state.TARGETS,
    **fuzz_network.TARGETS,
}


def corpus(name: str) -> list[Path]:
    """The kept inputs of a target: seeds written by hand, and findings in their shortest form."""
    return sorted((CORPUS / name).iterdir())
