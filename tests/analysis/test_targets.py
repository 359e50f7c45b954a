"""Every target has the structure that its name says, and a matrix that no method can be fitted to is refused."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from kravl.adapters.rank import gram_singular_values
from kravl.analysis.approximation.stored import Delta, Pretrained
from kravl.analysis.approximation.synthetic import (
    BlockDiagonal,
    Kronecker,
    LowRank,
    PowerLaw,
    RankOneTerms,
    Sinusoids,
    Sparse,
    Whitened,
)
from kravl.analysis.approximation.target import Target, draw_matrix
from kravl.config.instantiate import build
from kravl.config.schema import CONFIGS
from kravl.runtime.errors import InputError

FILES = sorted((CONFIGS / "target").glob("*.yaml"))


def values(target: Target, shape: tuple[int, int] = (24, 40)) -> torch.Tensor:
    return gram_singular_values(draw_matrix("it", target, shape, 1))


@pytest.mark.parametrize("path", [p for p in FILES if p.stem != "delta"], ids=lambda p: p.stem)
@pytest.mark.parametrize("shape", [(30, 30), (24, 40), (40, 24)])
def test_a_shipped_target_can_be_drawn_and_follows_from_its_seed(path, shape):
    target = build(OmegaConf.to_container(OmegaConf.load(path)), Target)()

    first, again, other = (draw_matrix(path.stem, target, shape, seed) for seed in (1, 1, 2))

    assert first.shape == shape
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (path.stem in ("pretrained", "flat_aligned"))


@pytest.mark.parametrize("exponent", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("vectors", ["random", "aligned"])
def test_a_power_law_has_its_spectrum(exponent, vectors):
    expected = torch.arange(1, 25, dtype=torch.float64) ** -exponent

    torch.testing.assert_close(values(PowerLaw(exponent, vectors)), expected, rtol=1e-6, atol=1e-9)


def test_aligned_singular_vectors_are_the_coordinate_axes():
    matrix = draw_matrix("it", PowerLaw(0.0, "aligned"), (3, 5), 1)

    assert torch.equal(matrix, torch.eye(5, dtype=torch.float64)[:3])


@pytest.mark.parametrize(("target", "rank"), [(RankOneTerms(1), 1), (RankOneTerms(5), 5), (LowRank(0.25), 6)])
def test_ranks_are_as_asked(target, rank):
    spectrum = values(target)

    assert spectrum[rank - 1] > 0.1
    assert spectrum[rank:].max() < 1e-6 * spectrum[0]


def test_whitening_leaves_a_flat_spectrum():
    spectrum = values(Whitened(), (200, 10))

    assert spectrum[-1] / spectrum[0] > 0.999


def test_sparse_noise_keeps_its_share_and_its_mean_square():
    matrix = draw_matrix("it", Sparse(0.1), (300, 300), 1)

    assert (matrix != 0).double().mean() == pytest.approx(0.1, abs=0.01)
    assert matrix.square().mean() == pytest.approx(10.0, rel=0.05)


def test_blocks_stand_on_the_diagonal():
    matrix = draw_matrix("it", BlockDiagonal(3), (6, 9), 1)

    expected = torch.block_diag(*[torch.ones(2, 3)] * 3)
    assert torch.equal((matrix != 0).float(), expected)


def test_a_kronecker_target_is_of_rank_one_in_blocks():
    matrix = draw_matrix("it", Kronecker(4), (8, 12), 1)

    rows = matrix.view(4, 2, 4, 3).transpose(1, 2).reshape(16, 6)
    assert torch.linalg.matrix_rank(rows) == 1


def test_a_sinusoid_of_whole_frequency_is_one_line_of_the_discrete_spectrum():
    matrix = draw_matrix("it", Sinusoids(1, 3, harmonics=0), (3, 32), 1)

    power = torch.fft.rfft(matrix).abs()
    assert power.argmax(dim=1).tolist() == [1, 2, 3]
    torch.testing.assert_close(power.max(dim=1).values, torch.full((3,), 16.0, dtype=torch.float64))


def test_a_tensor_of_a_file_is_cut_to_the_shape(tmp_path: Path):
    weight = torch.arange(35.0).view(5, 7)
    save_file({"a.weight": weight, "a.bias": torch.ones(5)}, tmp_path / "w.safetensors")

    matrix = draw_matrix("it", Pretrained(str(tmp_path / "w.safetensors"), "*.weight"), (3, 4), 1)

    assert torch.equal(matrix, weight[:3, :4].double())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: Pretrained(f"{path}/none.safetensors", "a"), "none.safetensors' cannot be read"),
        (lambda path: Pretrained(f"{path}/w.safetensors", "a.weigth"), r"no matrix 'a.weigth' .*\['a.weight'"),
        (lambda path: Pretrained(f"{path}/w.safetensors", "a.bias"), "no matrix 'a.bias'"),
        (lambda path: Pretrained(f"{path}/w.safetensors", "nan.weight"), "holds 1 values that are not finite"),
        (lambda path: Pretrained(f"{path}/w.safetensors", "zero.weight"), "is all zeros"),
        (lambda path: Pretrained(f"{path}/w.safetensors", "small.weight"), r"is \(2, 2\), smaller than shape=\[3, 3\]"),
        (lambda path: Delta(None, "*"), "variants.delta.run=FOLDER"),
        (lambda path: Delta(f"{path}", "*"), "is of None; only kravl.adapters.full.Full"),
        (lambda path: Delta(f"{path}/seed1", "*"), "no run '.*/seed1'"),
        (lambda path: BlockDiagonal(4), "4 blocks do not fit"),
        (lambda path: PowerLaw(-1.0), "exponent must be at least 0"),
        (lambda path: PowerLaw(1.0, "alinged"), "did you mean 'aligned'"),
        (lambda path: RankOneTerms(0), "terms must be a whole number"),
        (lambda path: Sparse(0.0), "density must be a fraction"),
        (lambda path: Sinusoids(5, 5), "0 < low < high"),
    ],
)
def test_what_cannot_be_a_target_is_one_line(tmp_path: Path, make, message):
    bad = torch.ones(3, 3)
    bad[0, 0] = torch.nan
    tensors = {"a.weight": torch.ones(3, 3), "a.bias": torch.ones(3), "nan.weight": bad}
    tensors |= {"zero.weight": torch.zeros(3, 3), "small.weight": torch.ones(2, 2)}
    for name in ("w", "adapter"):
        save_file(tensors, tmp_path / f"{name}.safetensors")

    with pytest.raises(InputError, match=message):
        draw_matrix("it", make(tmp_path), (3, 3), 1)


def test_the_run_of_an_update_may_omit_the_hash_at_its_end(tmp_path: Path):
    folder = tmp_path / "full/seed1-0123abcd"
    folder.mkdir(parents=True)
    for name in ("config.yaml", "metrics.json"):
        (folder / name).write_text("{}")

    assert Delta(str(tmp_path / "full/seed1"), "*").source == folder / "adapter.safetensors"


def test_a_row_is_refused():
    with pytest.raises(InputError, match="1 x 9: both sides must be at least 2"):
        draw_matrix("it", PowerLaw(1.0), (1, 9), 1)
