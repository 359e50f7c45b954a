"""Memory that is kept between calls."""

import threading

import torch

from kravl.adapters.workspace import cast, release, scratch

LIKE = torch.empty(0)


def test_a_smaller_matrix_takes_the_memory_of_a_larger_one_and_another_purpose_its_own():
    large = scratch("matrix", (6, 5), LIKE, torch.float32)
    small = scratch("matrix", (2, 3), LIKE, torch.float32)
    other = scratch("cast", (2, 3), LIKE, torch.float32)

    assert small.shape == (2, 3)
    assert small.data_ptr() == large.data_ptr() != other.data_ptr()


def test_released_memory_is_not_given_again_while_it_is_held():
    held = scratch("matrix", (6, 5), LIKE, torch.float32)
    release()

    assert scratch("matrix", (6, 5), LIKE, torch.float32).data_ptr() != held.data_ptr()


def test_each_thread_has_its_own():
    here, there = scratch("matrix", (6, 5), LIKE, torch.float32), []
    thread = threading.Thread(target=lambda: there.append(scratch("matrix", (6, 5), LIKE, torch.float32)))
    thread.start()
    thread.join()

    assert there[0].data_ptr() != here.data_ptr()


def test_what_is_made_in_inference_mode_can_be_written_in_training():
    release()
    with torch.inference_mode():
        scratch("matrix", (2, 2), LIKE, torch.float32)

    assert not scratch("matrix", (2, 2), LIKE, torch.float32).zero_().is_inference()


def test_a_cast_to_the_same_type_is_the_matrix_itself():
    matrix = torch.randn(3, 2)

    assert cast(matrix, torch.float32) is matrix
    assert torch.equal(cast(matrix, torch.bfloat16), matrix.bfloat16())
