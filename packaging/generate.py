"""Write a manual page, a shell's completions, a page of reference or the bill of materials.

python3 -BIS packaging/generate.py NAME, where NAME is firstkey.8, firstkey.conf.5, bash, zsh, fish,
firstkey.spdx.json, or reference-WHAT.md, guidelines.md or rooms.svg of docs/. All come from what the program
itself knows (its option parsers, settings, reason codes, events, rules and imports), so they can neither lack
an option nor tell of one that is gone.
The standard library is all that is needed: shtab would be one more thing to build with that RHEL and Amazon
Linux do not have, and it does not know every shell.
"""

from __future__ import annotations

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "agent")]

from generator import bill, completions, manual, reference, rooms  # noqa: E402 - the path comes first

DOCUMENTS = {
    "firstkey.8": manual.firstkey,
    "firstkey.conf.5": manual.firstkey_conf,
    "bash": completions.bash,
    "zsh": completions.zsh,
    "fish": completions.fish,
    "firstkey.spdx.json": bill.of_materials,
    "reference-reasons.md": reference.reason_codes,
    "reference-events.md": reference.event_list,
    "reference-configuration.md": reference.configuration,
    "guidelines.md": reference.guidelines,
    "rooms.svg": rooms.drawing,
}


def main(arguments: list[str]) -> int:
    """Print the document; returns the exit status."""
    if len(arguments) != 1 or arguments[0] not in DOCUMENTS:
        sys.stderr.write(f"usage: generate.py {'|'.join(DOCUMENTS)}\n")
        return 2
    sys.stdout.buffer.write(DOCUMENTS[arguments[0]]().encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
