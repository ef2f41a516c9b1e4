"""Which examples validate where no validation data was given: by chance, so many of each class, or the last."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

SplitBy = Literal["chance", "class", "last"]

MOST_CLASSES = 1000
"""Labels of more values than this are numbers, and no classes."""

Index = npt.NDArray[np.int64]


def held_out(order: Index, labels: Any, count: int, by: SplitBy | None) -> tuple[Index, Index]:
    """The examples to validate on, ascending, and the others, in the order in which fewer of them are taken.

    Args:
        order: a permutation of all examples.
        labels: the data set's y; None, or a nest of arrays, where there is no one array of it.
        count: how many validate.
        by: as of `Dataset.split_by`; None for `chance`, unless that would leave validation without a class.
    """
    if by == "last":
        # The latest first: whoever takes fewer takes those.
        return np.arange(len(order) - count, len(order)), np.arange(len(order) - count)[::-1]
    chosen, classes = order[:count], classes_of(labels)
    if classes is not None and by in ("class", None):
        lacking = len(np.unique(classes[chosen])) < len(np.unique(classes))
        if by == "class" or lacking:
            chosen = _of_each(order, classes, count)
    left = np.ones(len(order), bool)
    left[chosen] = False
    return np.sort(chosen), order[left[order]]


def classes_of(labels: Any) -> npt.NDArray[Any] | None:
    """Labels as one class for each example; None where they are no classes."""
    if labels is None or isinstance(labels, dict | list | tuple):
        return None
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    elif array.ndim == 2 and array.dtype.kind in "biuf" and np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all():
        array = array.argmax(1)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "biufUS":
        return None
    values = np.unique(array)
    if array.dtype.kind == "f" and not np.array_equal(values, [0.0, 1.0]):
        return None
    return array if len(values) <= min(MOST_CLASSES, len(array) // 2) else None


def _of_each(order: Index, classes: npt.NDArray[Any], count: int) -> Index:
    """So many examples, of each class its share, and one at least where it has two and there is room."""
    _, place = np.unique(classes, return_inverse=True)
    sizes = np.bincount(place)
    share = sizes * count / len(order)
    taken = np.floor(share).astype(np.int64)
    taken = np.minimum(np.maximum(taken, sizes > 1), sizes)
    # What is missing goes to those whose share was cut most, what is too much comes from the largest.
    while taken.sum() < count:
        taken[np.where(taken < sizes, share - taken, -np.inf).argmax()] += 1
    while taken.sum() > count:
        taken[taken.argmax()] -= 1
    rank = np.zeros(len(order), np.int64)
    for label in range(len(sizes)):
        mine = order[place[order] == label]
        rank[mine] = np.arange(len(mine))
    return order[(rank < taken[place])[order]]
