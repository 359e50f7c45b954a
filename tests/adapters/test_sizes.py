"""The size of an adapter: a number, or a multiple of KRAdapter's parameters; what does not fit names what does."""

from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from kravl.adapters.bat import Bat
from kravl.adapters.budget import Sizes, common_divisors, kradapter_size
from kravl.adapters.c3a import C3A
from kravl.adapters.fourierft import FourierFT
from kravl.adapters.gralora import GraLoRA
from kravl.adapters.hira import HiRA
from kravl.adapters.hra import HRA
from kravl.adapters.kra import KRAdapter
from kravl.adapters.loha import LoHa
from kravl.adapters.lokr import LoKr
from kravl.adapters.miss import MiSS
from kravl.adapters.oft import OFT
from kravl.adapters.pissa import PiSSA
from kravl.adapters.psoft import PSOFT
from kravl.adapters.road import RoAd
from kravl.adapters.shira import SHiRA
from kravl.adapters.waveft import WaveFT
from kravl.config.schema import CONFIGS
from kravl.runtime.errors import InputError

SHAPES = [(64, 64), (192, 64), (48, 80), (13, 7), (1, 9), (1, 1)]
ALL = {path.stem: instantiate(OmegaConf.load(path)) for path in sorted((CONFIGS / "adapter").glob("*.yaml"))}


def trainable(adapter):
    return sum(parameter.numel() for parameter in adapter.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_unit_is_kradapters_number(shape):
    assert kradapter_size(shape) == trainable(KRAdapter(*shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ALL)
def test_counts_are_those_of_real_adapters(method, shape):
    sizes = ALL[method](*shape).legal_sizes()
    if sizes is None:
        pytest.skip("nothing sets its size")
    counts = [sizes.count(value) for value in sizes.values[:40]]

    real = [trainable(ALL[method](*shape, **{sizes.name: value})) for value in sizes.values[:40]]

    assert counts == real == sorted(counts)


@pytest.mark.parametrize("multiple", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("make", [SHiRA, FourierFT, WaveFT])
def test_a_multiple_is_met_exactly_where_numbers_are_free(make, multiple):
    adapter = make(48, 80, f"{multiple:g}x")

    assert trainable(adapter) == multiple * kradapter_size((48, 80))


@pytest.mark.parametrize("number", [1, 99, 100, 101, 149, 151, 10**9])
def test_the_nearest_size_is_taken(number):
    sizes = Sizes.of("block", common_divisors(24, 36), lambda block: 24 * 36 // block)

    counts = [24 * 36 // block for block in (1, 2, 3, 4, 6, 12)]

    assert abs(sizes.count(sizes.nearest(number)) - number) == min(abs(count - number) for count in counts)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            partial(C3A, block=5),
            r"block 5 does not fit a matrix of 24 x 36; the nearest that fits is 4 and 6; '1x' takes",
        ),
        (partial(C3A, block=99), r"block 99 does not fit .* the nearest that fits is 12; '1x'"),
        (partial(SHiRA, num_values=865), r"num_values 865 does not fit a matrix of 24 x 36; .* is 864"),
        (partial(FourierFT, num_coefficients=0), r"num_coefficients must be a whole number of at least 1"),
        (partial(WaveFT, num_coefficients="many"), r"or a multiple of KRAdapter's .* such as '1x', not 'many'"),
        (partial(HiRA, rank=-1), r"rank must be a whole number of at least 1"),
        (partial(HiRA, rank="0x"), r"rank must be .* not '0x'"),
        (partial(LoHa, rank=2.5), r"rank must be .* not 2.5"),
        (partial(LoHa, rank=25, init="abba"), r"rank 25 does not fit .* is 24"),
        (partial(LoHa, init="abbe"), r"unknown init 'abbe': did you mean 'abba'"),
        (partial(PiSSA, rank=25), r"rank 25 does not fit .* is 24"),
        (partial(PSOFT, rank=32), r"rank 32 does not fit .* is 24"),
        (partial(GraLoRA, grid=5), r"grid 5 does not fit a matrix of 24 x 36; the nearest that fits is 4 and 6"),
        (partial(GraLoRA, rank=10, grid=4), r"rank 10 does not fit .* is 8 and 12; '1x'"),
        (partial(LoKr, factor=8), r"factor 8 does not fit .* is 6 and 12; '1x'"),
        (partial(LoKr, rank=0), r"rank must be a whole number of at least 1, or null"),
        (partial(MiSS, rank=37), r"rank 37 does not fit .* is 36"),
        (partial(Bat, rank=9), r"rank 9 does not fit .* is 6 and 12"),
        (partial(OFT, block=8), r"block 8 does not fit .* is 6 and 9"),
        (partial(OFT, terms=1), r"terms must be a whole number of at least 2, or null"),
        (partial(HRA, rank=5), r"rank 5 does not fit .* is 4 and 6"),
        (partial(RoAd, group=5), r"group 5 does not fit 24 outputs: it is even and divides them, such as 4 or 6"),
        (partial(RoAd, variant=3), r"unknown variant '3'"),
    ],
)
def test_an_illegal_size_names_the_nearest_legal_ones(make, message):
    with pytest.raises(InputError, match=message):
        make(24, 36)


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (HiRA, (3, 4), "those of a 3 x 4 matrix are all zero"),
        (OFT, (3, 1), "OFT rotates the input of a matrix, and one of 3 x 1 has a single input"),
        (HRA, (3, 1), "HRA rotates the input"),
        (RoAd, (1, 3), "RoAd rotates pairs of outputs, and a matrix of 1 x 3 has one"),
    ],
)
def test_a_matrix_that_a_method_cannot_change_is_refused(make, shape, message):
    with pytest.raises(InputError, match=message):
        make(*shape).attach(torch.zeros(shape))
