"""The complete sweep: every job interrupted at every call in every way, and every tree a power cut may leave.

For people: ./dev sweep [JOB]... Prints what is wrong as it is found, and the figures;
exits with 1 if there is anything.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import crash_scenarios
import sweeps
from crash_scenarios import Scenario


def main() -> int:
    """Sweep; returns the exit status."""
    parser = argparse.ArgumentParser(prog="./dev sweep", description=__doc__)
    parser.add_argument("jobs", metavar="JOB", nargs="*", help=", ".join(crash_scenarios.SCENARIOS))
    names = parser.parse_args().jobs or list(crash_scenarios.SCENARIOS)
    wrong = 0
    for name in names:
        with tempfile.TemporaryDirectory() as place, crash_scenarios.scenario(name, Path(place)) as scenario:
            for title, found in interruptions(scenario):
                wrong += logged(name, title, found)
            wrong += logged(name, "power cut, at once", at_once(scenario))
            wrong += logged(name, "power cut, next boot", on_next_boot(scenario))
    return 1 if wrong else 0


def interruptions(scenario: Scenario) -> Iterator[tuple[str, Iterator[str]]]:
    """For each way, what was wrong at each call: nothing where all was well."""
    total = len(sweeps.calls(scenario))
    for way in sweeps.WAYS:
        yield way, at_each_call(scenario, way, total)


def at_each_call(scenario: Scenario, way: str, total: int) -> Iterator[str]:
    """The same for one way."""
    for number in range(1, total + 1):
        case = sweeps.case(scenario, way, number)
        if case:
            yield str(case) if case.wrong else ""


def at_once(scenario: Scenario) -> Iterator[str]:
    """What is wrong with each tree that a power cut may leave."""
    for cut in sweeps.power_cuts(scenario):
        yield described(cut, sweeps.found_at_once(scenario, cut))


def on_next_boot(scenario: Scenario) -> Iterator[str]:
    """What is wrong with what the next boot makes of each."""
    for cut in sweeps.power_cuts(scenario):
        yield described(cut, sweeps.found_on_next_boot(scenario, cut))


def described(cut: sweeps.Cut, wrong: list[str]) -> str:
    """As it is printed; nothing where all is well."""
    where = f"power cut after call {cut.call.number}, {cut.call.name} {cut.call.path}:"
    return "\n  ".join([where, *wrong]) if wrong else ""


def logged(name: str, title: str, found: Iterator[str]) -> int:
    """Print what was found, and how many there were; returns how many were wrong."""
    started = time.monotonic()
    cases = wrong = 0
    for text in found:
        cases += 1
        if text:
            wrong += 1
            print(text, flush=True)
    print(f"{name}: {title}: {cases} cases, {wrong} wrong, {time.monotonic() - started:.0f} s", flush=True)
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())
