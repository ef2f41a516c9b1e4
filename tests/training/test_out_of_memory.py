"""A want of memory is told from the user's own mistakes, by type and by each of the texts of CUDA."""

from __future__ import annotations

import pytest
import tensorflow as tf
from batchopt.training.out_of_memory import OUT_OF_MEMORY_TEXTS, ModelTooLarge, is_out_of_memory
from batchopt.training.worker import failure


@pytest.mark.parametrize("text", OUT_OF_MEMORY_TEXTS)
@pytest.mark.parametrize("kind", [tf.errors.InternalError, tf.errors.UnknownError])
def test_each_text_of_cuda_is_a_want_of_memory(kind: type[tf.errors.OpError], text: str) -> None:
    assert is_out_of_memory(kind(None, None, f"Graph execution error: failed call: {text}: out of memory"))
    assert failure(kind(None, None, text)).kind == "memory"


@pytest.mark.parametrize(
    "error", [MemoryError("numpy"), tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")]
)
def test_the_type_tells_by_itself(error: Exception) -> None:
    assert failure(error).kind == "memory"


def test_a_want_of_memory_while_a_step_is_traced_is_one_too() -> None:
    """TensorFlow raises it as an error of its own."""

    def greedy(x: tf.Tensor) -> tf.Tensor:
        return x + len(bytearray(1 << 60))

    with pytest.raises(Exception, match="user code") as raised:
        tf.function(greedy)(tf.constant(1))
    assert not isinstance(raised.value, MemoryError)
    assert failure(raised.value).kind == "memory"


def test_what_the_model_itself_takes_is_told_apart() -> None:
    assert failure(ModelTooLarge("40 GiB")).kind == "model"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("CUDA_ERROR_OUT_OF_MEMORY"),
        tf.errors.InternalError(None, None, "CUDA_ERROR_ILLEGAL_ADDRESS"),
        tf.errors.InvalidArgumentError(None, None, "shapes do not match"),
    ],
)
def test_anything_else_is_no_want_of_memory_nor_the_users_where_none_of_their_code_ran(
    error: Exception,
) -> None:
    assert failure(error).kind == "training"
