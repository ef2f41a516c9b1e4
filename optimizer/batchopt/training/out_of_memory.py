"""Memory that has run out, told by an error's type first, by its text where the type does not tell; no TensorFlow."""

from __future__ import annotations

OUT_OF_MEMORY_TEXTS = (
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Failed to load in-memory CUBIN",
)


class ModelTooLarge(MemoryError):
    """Memory ran out while a model was built, so that the batch size has nothing to do with it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device's or the host's memory did not suffice; Keras and TensorFlow wrap what user code raised."""
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind == "ResourceExhaustedError":
        return True
    if kind in ("InternalError", "UnknownError") and any(text in str(error) for text in OUT_OF_MEMORY_TEXTS):
        return True
    return error.__context__ is not None and is_out_of_memory(error.__context__)
