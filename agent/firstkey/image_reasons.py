"""More of the published list of reasons: those of audit and seal, which no boot meets or reads."""

from __future__ import annotations

from firstkey.reasons import define

NOT_LOOKED_AT = define(
    "not-looked-at",
    "It was not looked at, or not all of it, because it is too large or lies too deep.",
    "Look at it by hand, or remove it from the image.",
)
OVER_BUDGET = define(
    "over-budget",
    "What was looked at took more work than it may, so not all of it was seen.",
    "Look at it by hand, or remove it from the image.",
)
NOT_INTACT = define(
    "not-intact",
    "It is packed in a way that cannot be read here to its end: broken, cut off, encrypted or unknown.",
    "Unpack it and look at it by hand, or remove it from the image.",
)
NO_SCANNER = define(
    "no-scanner",
    "No scanner for secrets gave an answer that can be used, so tokens of other makers were not looked for.",
    "Do what is said of it (to have one: pip install kingfisher-bin), or give --secrets builtin.",
)
MOUNTED = define(
    "mounted-from-elsewhere",
    "It lies in what is mounted into the tree from elsewhere, which is no part of the image.",
    "Unmount it. If it is a part of the image, mount it below the root alone, and seal again.",
)

PACKAGES_UNKNOWN = define(
    "packages-unknown",
    "The package manager's records cannot be read here, so what belongs to a package cannot be told apart.",
    "Audit the image on a host of its own kind, or look at what is named by hand.",
)
NO_PROOF = define(
    "no-proof",
    "No setting could be found that sshd accepts and that has the wanted effect; nothing was changed.",
    "Look at what the image's sshd makes of its configuration, and set it by hand.",
)

ACCOUNTS_BROKEN = define(
    "accounts-broken",
    "A file of accounts is not as it should be.",
    "Correct the line that is named, or take it out.",
)

NEEDED = define(
    "needed-by-the-system",
    "No system does without this file or directory, so seal neither removes nor empties it.",
    "Look at what named it (a link, a line of some configuration), and take out by hand what has to go.",
)
CONTRADICTION = define(
    "steps-contradict",
    "Two steps of the plan would undo each other, so the one that destroys something is not done.",
    "Look at the links and settings that name one file for two purposes, and seal again.",
)
IN_USE = define(
    "in-use",
    "Running programs use it, so it stays.",
    "End what uses it, and seal again; or seal the image from another machine.",
)
NOT_AS_PREDICTED = define(
    "not-as-predicted",
    "The audit after sealing finds what should be gone by then, or what was not there before.",
    "Look at it: another program may have made it meanwhile. Then seal again.",
)

NOT_THE_RUNNING_SYSTEM = define(
    "not-the-running-system",
    "This would run a program of the image, and nothing in an image is run.",
    "Run the command that is named inside the image (chroot, systemd-nspawn), or on an instance of it.",
)
NOT_ASKED_FOR = define(
    "not-asked-for",
    "Seal does this only when it is asked to.",
    "Give the option that is named, once you are sure.",
)
FOR_A_PERSON = define(
    "for-a-person",
    "Nothing but a person can mend this.",
    "Do what firstkey audit says about each finding.",
)
STILL_NEEDED = define(
    "still-needed",
    "It is needed as long as another finding is there.",
    "Mend the other finding first, and seal again.",
)
