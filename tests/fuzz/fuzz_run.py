"""The fuzzer: atheris on the targets beside, started by `./dev fuzz [TARGET] [SECONDS]`.

What it learns is kept in build/fuzz/TARGET, so that the next run goes on from there, and a finding is left
there too. A finding belongs into corpus/TARGET in its shortest form, where every test run tries it again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["firstkey"]):
    # Those that are loaded by a function alone, and would otherwise be none of the fuzzer's.
    from fuzz_targets import CORPUS, TARGETS

    import firstkey.config  # noqa: F401 - as above

TOP = Path(__file__).resolve().parents[2]
SLOW_SECONDS = 10
"""No input may take longer: a regular expression that runs away is a finding."""
MEMORY_MIB = 1024
LONGEST = 4096
"""Bytes of an input: mistakes show in short ones."""


def main(argv: list[str]) -> int:
    """Fuzz one target for so many seconds, or each of them, one process a target."""
    words = [word for word in argv if not word.isdecimal()]
    seconds = next((int(word) for word in argv if word.isdecimal()), 60)
    unknown = [word for word in words if word not in TARGETS]
    if unknown or len(words) > 1 or len(argv) > 2:
        print(f"usage: ./dev fuzz [TARGET] [SECONDS]; targets: {' '.join(TARGETS)}", file=sys.stderr)
        return 2
    if words and "FUZZ_HERE" in os.environ:
        fuzz(words[0], seconds)
    return max(_in_own_process(name, seconds) for name in words or TARGETS)


def _in_own_process(name: str, seconds: int) -> int:
    print(f"--- {name}, {seconds} s", file=sys.stderr, flush=True)
    argv = [sys.executable, __file__, name, str(seconds)]
    return subprocess.run(argv, check=False, env={**os.environ, "FUZZ_HERE": "1"}).returncode


def fuzz(name: str, seconds: int) -> None:
    """Fuzz in this process, which ends with it: 0, or another status where something was found."""
    learned = TOP / "build" / "fuzz" / name
    (learned / "inputs").mkdir(parents=True, exist_ok=True)
    dictionary = learned / "words"
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in TARGETS[name].words))
    options = {
        "max_total_time": seconds,
        "max_len": LONGEST,
        "timeout": SLOW_SECONDS,
        "rss_limit_mb": MEMORY_MIB,
        "dict": dictionary,
        "artifact_prefix": f"{learned}/",
        "print_final_stats": 1,
    }
    flags = [f"-{key}={value}" for key, value in options.items()]
    # So that it learns from comparisons of texts, too. Its hook for patterns knows no place to start from.
    atheris.enabled_hooks.add("str")
    atheris.Setup([sys.argv[0], *flags, f"{learned}/inputs", str(CORPUS / name)], TARGETS[name].check)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
