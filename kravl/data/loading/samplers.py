"""The order of images: for training a pure function of (seed, epoch), for evaluation the order of the set."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch.utils.data import Dataset, DistributedSampler

LARGEST_SEED = 2**63 - 1


class AugmentedIndex(NamedTuple):
    """One image of an epoch: its position in the samples, and the seed of its augmentation."""

    position: int
    seed: int


class EpochSampler(DistributedSampler[AugmentedIndex]):
    """Random permutations of ``size`` images, repeated until an epoch has ``min_draws``.

    An epoch draws each image equally often, give or take one. Several processes take turns through one common order;
    a process that would end up one short takes an image from its start. Set ``start`` to skip the first draws.

    Args:
        size: number of images.
        min_draws: the least number of draws per epoch; fewer than ``size`` means ``size``.
        num_replicas, rank: the number of processes and the rank of this one.
    """

    def __init__(self, size: int, min_draws: int, seed: int, num_replicas: int = 1, rank: int = 0) -> None:
        # Lightning wraps a sampler of another class in one that shuffles again
        super().__init__(_sized(size), num_replicas=num_replicas, rank=rank, seed=seed)
        self.size = size
        self.start = 0
        self._num_draws = max(size, min_draws)

    def __len__(self) -> int:
        return -(-self._num_draws // self.num_replicas)

    def __iter__(self) -> Iterator[AugmentedIndex]:
        generator = torch.Generator().manual_seed(_mix(self.seed, self.epoch))
        rounds = [torch.randperm(self.size, generator=generator) for _ in range(-(-self._num_draws // self.size))]
        order = torch.cat(rounds)[: self._num_draws].tolist()
        seeds = torch.randint(LARGEST_SEED, (len(order),), generator=generator).tolist()
        share = [i % len(order) for i in range(self.rank, len(self) * self.num_replicas, self.num_replicas)]
        return iter([AugmentedIndex(order[i], seeds[i]) for i in share[self.start :]])


class DistributedSequential(DistributedSampler[int]):
    """Every image once, in order; each of several processes takes its share, and none is repeated as padding."""

    def __init__(self, size: int, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(_sized(size), num_replicas=num_replicas, rank=rank, shuffle=False)
        self._share = range(rank, size, num_replicas)

    def __len__(self) -> int:
        return len(self._share)

    def __iter__(self) -> Iterator[int]:
        return iter(self._share)


class FixedOrder(DistributedSampler[AugmentedIndex]):
    """These draws, one after another, in every process."""

    def __init__(self, draws: Sequence[AugmentedIndex]) -> None:
        super().__init__(_sized(len(draws)), num_replicas=1, rank=0, shuffle=False)
        self._draws = draws

    def __len__(self) -> int:
        return len(self._draws)

    def __iter__(self) -> Iterator[AugmentedIndex]:
        return iter(self._draws)


def _sized(size: int) -> Dataset[int]:
    return cast(Dataset[int], range(size))  # the base class uses only the length of a data set


def _mix(seed: int, epoch: int) -> int:
    # neighbouring seeds must not share epochs, as seed + epoch would
    return int(torch.randint(LARGEST_SEED, (), generator=torch.Generator().manual_seed(seed))) ^ (epoch << 20)
