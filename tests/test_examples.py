"""The examples in the docstrings of what a library user calls run as they stand."""

import doctest
from collections.abc import Callable

import pytest

import kravl

PUBLIC: list[Callable[..., object]] = [
    kravl.inject, kravl.save_adapters, kravl.load_adapters, kravl.effective_rank, kravl.KRAdapter, kravl.LoRA,
    kravl.AdapterSet.merge, kravl.AdapterSet.unmerge, kravl.AdapterSet.disable_adapters,
    kravl.AdapterSet.merge_and_unload,
]  # fmt: skip


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__qualname__)
def test_the_example_gives_what_it_shows(thing: Callable[..., object]) -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(thing, thing.__qualname__)

    result = doctest.DocTestRunner().run(example)

    assert result.attempted
    assert not result.failed


def test_what_is_exported_is_loaded_when_it_is_asked_for() -> None:
    assert {"KRAdapter", "LoRA", "DoRA", "inject", "effective_rank"} <= set(dir(kravl))
    with pytest.raises(AttributeError, match="no attribute 'KRAdaptor'"):
        kravl.KRAdaptor  # noqa: B018
