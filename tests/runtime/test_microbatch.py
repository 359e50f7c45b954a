"""A batch that memory does not hold is split until it fits, by what the allocator says."""

import pytest
import torch

from kravl.runtime.microbatch import MicroBatches, OutOfMemory, is_out_of_memory

FITS = 2  # images of the batch below


def encoder(device: str):
    """Doubles images; more than FITS of them ask for memory that is not there."""
    if device == "cuda":
        torch.cuda.empty_cache()
        each = int(torch.cuda.mem_get_info()[0] / (FITS + 0.5))
    else:
        each = 0  # a process may not have 2 ** 47 bytes on any 64-bit processor, whatever the memory

    def encode(images: torch.Tensor) -> torch.Tensor:
        size = len(images) * each if device == "cuda" else 2**50 * (len(images) > FITS)
        held = torch.empty(size, dtype=torch.uint8, device=device)
        assert held.device.type == device
        return images * 2

    return encode


def test_a_batch_is_halved_until_it_fits_and_stays_so(device: str, caplog: pytest.LogCaptureFixture) -> None:
    images, micro_batches = torch.arange(8.0, device=device), MicroBatches()

    encoded = micro_batches.encode(encoder(device), images, "loading.batch_size")

    assert torch.equal(encoded, images * 2)
    assert micro_batches.size == FITS
    assert "splitting loading.batch_size=8 into 4 micro-batches of 2" in caplog.text


def test_one_image_that_does_not_fit_names_what_to_change(device: str) -> None:
    def encode(images: torch.Tensor) -> torch.Tensor:
        return torch.empty(2**50, dtype=torch.uint8, device=device)

    with pytest.raises(OutOfMemory, match=r"a smaller loading\.batch_size cannot help"):
        MicroBatches().encode(encode, torch.zeros(3, device=device), "loading.batch_size")


@pytest.mark.parametrize(
    ("message", "is_memory"),
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`", False),
    ],
)
def test_memory_of_cudas_libraries_is_memory(message: str, is_memory: bool) -> None:
    assert is_out_of_memory(RuntimeError(message)) == is_memory
