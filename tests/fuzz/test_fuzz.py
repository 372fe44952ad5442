"""The fuzzer's targets in the normal run: their kept corpus, and what hypothesis makes of it."""

from __future__ import annotations

import pytest
from fuzz_targets import CORPUS, TARGETS, corpus
from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLES = 100
SMALL = 5000
"""Bytes: a seed or a finding in its shortest form, which a reader can take in."""


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_corpus_breaks_no_promise(name: str) -> None:
    """Seeds that reach deep, and every finding of the fuzzer so far: on any Python, without the fuzzer."""
    kept = corpus(name)
    assert len(kept) >= 3
    for path in kept:
        TARGETS[name].check(path.read_bytes())


def test_the_corpus_is_small_and_belongs_to_targets() -> None:
    """A file that no target reads proves nothing, and a large one tells nobody anything."""
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    files = [path for name in TARGETS for path in corpus(name)]
    assert all(path.stat().st_size <= SMALL for path in files)
    assert len(files) <= 30 * len(TARGETS)


@st.composite
def changed(draw: st.DrawFn, kept: list[bytes], words: tuple[bytes, ...]) -> bytes:
    """A kept input with some stretches of it replaced by words or by anything."""
    content = draw(st.sampled_from(kept))
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(content)))
        end = draw(st.integers(begin, min(len(content), begin + 40)))
        content = content[:begin] + draw(st.sampled_from(words) | st.binary(max_size=12)) + content[end:]
    return content


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.sample(10)
def test_no_change_of_the_corpus_breaks_a_promise(name: str) -> None:
    """What a fuzzer does for hours, for a moment: any target may meet any bytes."""
    target = TARGETS[name]
    kept = [path.read_bytes() for path in corpus(name)]

    @settings(max_examples=EXAMPLES)
    @given(changed(kept, target.words) | st.lists(st.sampled_from(target.words), max_size=12).map(b"".join))
    def try_it(data: bytes) -> None:
        target.check(data)

    try_it()
