"""The order of an epoch depends on seed and epoch alone, and no image is drawn much more often than another."""

from collections import Counter

import pytest

from kravl.data.loading.samplers import AugmentedIndex, DistributedSequential, EpochSampler


def epoch(sampler: EpochSampler, number: int) -> list[AugmentedIndex]:
    sampler.set_epoch(number)
    return list(sampler)


def test_an_epoch_is_a_permutation_that_only_seed_and_epoch_decide() -> None:
    sampler = EpochSampler(10, min_draws=1, seed=1)

    epochs = [epoch(sampler, number) for number in (0, 1, 0)]

    assert sorted(draw.position for draw in epochs[0]) == list(range(10))
    assert epochs[0] == epochs[2] == epoch(EpochSampler(10, min_draws=1, seed=1), 0)
    assert epochs[0] != epochs[1]
    assert epochs[0] != epoch(EpochSampler(10, min_draws=1, seed=2), 0)
    assert len({draw.seed for draws in epochs[:2] for draw in draws}) == 20


def test_neighbouring_seeds_share_no_epoch() -> None:
    orders = [tuple(epoch(EpochSampler(10, 1, seed), number)) for seed in range(5) for number in range(5)]

    assert len(set(orders)) == 25


@pytest.mark.parametrize("min_draws", [7, 23, 30])
def test_a_small_set_is_repeated_evenly_with_other_augmentations(min_draws: int) -> None:
    sampler = EpochSampler(10, min_draws, seed=1)

    draws = epoch(sampler, 0)

    counts = Counter(draw.position for draw in draws)
    assert len(draws) == len(sampler) == max(10, min_draws)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len({draw.seed for draw in draws}) == len(draws)


def test_a_start_skips_the_first_draws_and_keeps_the_length() -> None:
    sampler = EpochSampler(10, 1, seed=1)
    whole = list(sampler)

    sampler.start = 4

    assert list(sampler) == whole[4:]
    assert len(sampler) == 10


@pytest.mark.parametrize("num_replicas", [2, 3])
def test_processes_share_one_order_in_equal_parts(num_replicas: int) -> None:
    whole = list(EpochSampler(10, 1, seed=1))

    parts = [list(EpochSampler(10, 1, 1, num_replicas, rank)) for rank in range(num_replicas)]

    assert {len(part) for part in parts} == {-(-10 // num_replicas)}
    interleaved = [draw for turn in zip(*parts, strict=True) for draw in turn]
    assert interleaved[:10] == whole
    assert interleaved[10:] == whole[: len(interleaved) - 10]


@pytest.mark.parametrize("num_replicas", [1, 2, 3])
def test_evaluation_takes_every_image_once_whatever_the_processes(num_replicas: int) -> None:
    parts = [DistributedSequential(10, num_replicas, rank) for rank in range(num_replicas)]

    assert sorted(i for part in parts for i in part) == list(range(10))
    assert [len(list(part)) for part in parts] == [len(part) for part in parts]
    assert list(parts[0]) == sorted(parts[0])
