"""More of the published list of reasons: those of audit and seal, which no boot meets or reads."""

from __future__ import annotations

from firstkey.reasons import define

# One reason is one short paragraph, as in reasons.py.
# fmt: off

NOT_LOOKED_AT = define("not-looked-at",
    "The file or directory was not read, or not all of it: it is too large, lies too deep, or nothing here "
    "can read it.",
    "Check it by hand, or remove it from the image.")
OVER_BUDGET = define("over-budget",
    "The file or rule took more work than its limit, so not all of it was read.",
    "Check it by hand, or remove it from the image.")
NOT_INTACT = define("not-intact",
    "The packed file cannot be read to its end: it is broken, cut off, encrypted or of an unknown format.",
    "Unpack it and check it by hand, or remove it from the image.")
NO_SCANNER = define("no-scanner",
    "No scanner for secrets gave a usable answer, so tokens of other services were not searched for.",
    "Follow its message (to have one: pip install kingfisher-bin), or give --secrets builtin.")
MOUNTED = define("mounted-from-elsewhere",
    "The path is on a mount of the host in the tree, which is no part of the image.",
    "Unmount it. If it is a part of the image, mount it below the root alone, and seal again.")

ENDPOINT_OF_TREE = define("endpoint-of-tree",
    "The tree's configuration names a metadata service. firstkey asks none that only a tree names.",
    "If this machine may ask it, name it: --imds URL")
PACKAGES_UNKNOWN = define("packages-unknown",
    "The package manager's records cannot be read here, so files of packages cannot be told from others.",
    "Audit the image on a host of its own kind, or check the named files by hand.")
NO_PROOF = define("no-proof",
    "No setting could be found that sshd accepts and that has the wanted effect; nothing was changed.",
    "Look at what the image's sshd makes of its configuration, and set it by hand.")

CONDITION_UNKNOWN = define("condition-unknown",
    "A unit runs under a condition that the files of an image do not decide, so its work may not be done.",
    "Enable firstkey.service, which does that work, or look on an instance whether the unit ran.")
ACCOUNTS_BROKEN = define("accounts-broken",
    "A file of accounts has a fault.",
    "Correct the line that is named, or remove it.")

NEEDED = define("needed-by-the-system",
    "Every system needs this file or directory, so seal neither removes nor empties it.",
    "Find the link or the line of a configuration that names it, and remove that by hand.")
CONTRADICTION = define("steps-contradict",
    "Two steps of the plan would undo each other, so seal does not do the one that destroys data.",
    "Check the links and settings that name one file for two purposes, and seal again.")
IN_USE = define("in-use",
    "Running programs use the file, so it stays.",
    "End these programs, and seal again; or seal the image from another machine.")
NOT_AS_PREDICTED = define("not-as-predicted",
    "The audit after sealing has a finding that sealing should have removed, or a new one.",
    "Check it: another program may have made it meanwhile. Then seal again.")

NOT_THE_RUNNING_SYSTEM = define("not-the-running-system",
    "The step would run a program of the image, and seal runs no program of an image.",
    "Run the command that is named inside the image (chroot, systemd-nspawn), or on an instance of it.")
NOT_ASKED_FOR = define("not-asked-for",
    "seal does this step only with an option.",
    "Give the option that is named, when you are sure.")
FOR_A_PERSON = define("for-a-person",
    "Only a person can repair this.",
    "Follow the remedy of each finding: firstkey audit")
STILL_NEEDED = define("still-needed",
    "The file is needed as long as another finding is there.",
    "Repair the other finding first, and seal again.")
