"""What each fault of the metadata service leads to, for whoever asks it."""

from __future__ import annotations

UNREACHABLE = (75, "unreachable", "imds-unreachable")
# By the fault as the command line has it: exit status, outcome and reason code.
EXPECTED: dict[str, tuple[int, str, str | None]] = {
    "refuse": UNREACHABLE,
    "reset": UNREACHABLE,
    "silence": UNREACHABLE,
    "token-silence": (0, "ok", None),  # IMDSv1, with a warning
    "delay=0.2": (0, "ok", None),
    "drip=0.05": UNREACHABLE,
    "drip-body=1": UNREACHABLE,
    "expired-tokens=1": (0, "ok", None),
    "expired-tokens=0": (75, "unreachable", "token-rejected"),
    "bad-key": (1, "failed", None),
    "bad-neighbour": (1, "partial", None),
    "bad-index": (1, "failed", "bad-answer"),
    "binary": (1, "failed", "bad-answer"),
    "html": (1, "failed", "bad-answer"),
    "status=503": (75, "unreachable", "imds-error"),
    "status=503,first=3": (0, "ok", None),
    "status=429,first=3": (0, "ok", None),
    "status=400": (1, "failed", "bad-request"),
    "status=401,path=/latest/meta-data": (75, "unreachable", "token-rejected"),
    "status=403": (1, "failed", "imds-disabled"),
    "status=404,path=/latest/meta-data/public-keys": (0, "no-key", "no-key-pair"),
    "redirect": (1, "failed", "redirect-refused"),
    "endless": (1, "failed", "answer-too-large"),
    "huge": (1, "failed", "answer-too-large"),
    "truncated": UNREACHABLE,
    "long-header": (1, "failed", "answer-too-large"),
    "many-headers": (1, "failed", "bad-answer"),
}
SILENT = ("silence", "token-silence", "drip=0.05", "drip-body=1")
"""Faults whose requests end with their timeout. Only there is it short."""


def timeout(fault: str) -> float:
    """Seconds that a request may take: with token-silence, the next ones are to be answered in time."""
    return 3.0 if fault in SILENT else 20.0


def quick(fault: str) -> str:
    """The configuration for that."""
    return f"[IMDS]\nRequestTimeoutSec={timeout(fault):g}\n"


def patience(fault: str) -> str:
    """How long to wait: an answer that is final comes at once, but a busy machine may be slow to start."""
    status, _, code = EXPECTED[fault]
    if status != 75:
        return "60"
    return "1" if code == "imds-unreachable" else "10"  # the others have at least to be asked
