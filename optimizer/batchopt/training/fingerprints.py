"""Fingerprints of data sets, by which a study knows its own again. No TensorFlow here."""

from __future__ import annotations

import hashlib

import numpy as np

from batchopt.question.task import Dataset, leaves


def data_fingerprint(data: Dataset) -> str:
    """SHA-256 of the training and validation arrays; of its element specification where data is streamed."""
    digest = hashlib.sha256()
    for part in (data.train, data.validation):
        if isinstance(part, tuple):
            for leaf in leaves(part):
                digest.update(f"{leaf.shape} {leaf.dtype}".encode())
                if leaf.dtype.hasobject:
                    digest.update(repr(leaf.tolist()).encode())
                else:
                    digest.update(np.ascontiguousarray(leaf).view(np.uint8).data)
        elif callable(part):
            from batchopt.training.made import first_batch

            shapes = [(leaf.shape[1:], leaf.dtype) for leaf in leaves(first_batch(part))]
            digest.update(f"made {shapes} {data.train_examples}".encode())
        else:
            digest.update(f"{part.element_spec} {int(part.cardinality())}".encode())
    return digest.hexdigest()
