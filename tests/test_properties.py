"""What holds for whatever is written: parsers answer or refuse in a line, records come back as they were."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from batchopt import SearchSpace
from batchopt.cli.parsing import (
    parse_batch_sizes,
    parse_bytes,
    parse_configuration,
    parse_duration,
    parse_learning_rates,
    parse_target,
)
from batchopt.errors import InvalidInput
from batchopt.question.goal import Goal
from batchopt.question.options import parse_worth
from batchopt.store.stamp import Stamp
from batchopt.text import cell, first_line, printable, shown_url, without_secrets
from hypothesis import given, settings
from hypothesis import strategies as st
from written_study import PROGRAM

FEW = settings(max_examples=40, deadline=None, derandomize=True, database=None)

NUMBER = st.one_of(
    st.integers(), st.floats(), st.sampled_from(["", "1e400", "0x10", "1_000", "\u0663", "\u00b2", "-0"])
).map(str)
WRITTEN = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.one_of(NUMBER, st.sampled_from(["..", ",", ":", "m", "h", "s", "%", "GiB", "full", "int", " per ", " "])),
        max_size=6,
    ).map("".join),
)
"""Anything, and what looks like something."""

PARSERS: list[Callable[[str], Any]] = [
    parse_duration,
    parse_bytes,
    parse_target,
    parse_configuration,
    parse_worth,
    parse_learning_rates,
    parse_batch_sizes,
    lambda text: parse_batch_sizes(text, full=1000),
]


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__name__)
def test_a_parser_answers_with_finite_numbers_or_refuses(parser: Callable[[str], Any]) -> None:
    @FEW
    @given(WRITTEN)
    def holds(text: str) -> None:
        try:
            found = parser(text)
        except InvalidInput:
            return
        numbers = found if isinstance(found, tuple | list) else [found] if isinstance(found, int | float) else []
        assert all(math.isfinite(number) for number in numbers)

    holds()


@FEW
@given(st.text(max_size=40))
def test_text_is_shown_in_one_line_that_no_terminal_acts_on(text: str) -> None:
    assert printable(text).isprintable()
    assert first_line(text).isprintable()
    assert not str(cell(text)).startswith(("=", "+", "-", "@"))


@FEW
@given(st.text(st.characters(categories=("L", "N", "P", "S")), min_size=5, max_size=20))
def test_no_password_is_shown_whatever_it_holds(password: str) -> None:
    secret = f"q{password}q"
    assert secret not in shown_url(f"postgresql://user:{secret}@host/studies")
    assert secret not in without_secrets(f"cannot log in with {secret}", f"postgresql://user:{secret}@host/studies")


SIZES = st.one_of(
    st.lists(st.integers(1, 1 << 20), min_size=1, max_size=8, unique=True),
    st.tuples(st.integers(1, 1000), st.integers(1000, 1 << 20)),
)
RATES = st.tuples(st.floats(1e-8, 1e-3), st.floats(1e-3, 10.0))


@FEW
@given(SIZES, RATES, st.integers(1, 1000), st.integers(0, 2**32 - 1))
def test_a_stamp_comes_back_from_json_as_it_was(sizes: Any, rates: tuple[float, float], epochs: int, seed: int) -> None:
    space = SearchSpace(sizes, rates)
    stored = {
        "space": space.describe(),
        "goal": Goal(epochs=epochs).describe(),
        "program": vars(PROGRAM),
        "seed": seed,
        "search": "auto",
        "versions": {},
    }
    stamp = Stamp.of(json.loads(json.dumps(stored)))
    assert stamp.space.describe() == space.describe() and stamp.space == space
    assert (stamp.goal, stamp.seed) == (Goal(epochs=epochs), seed)


@FEW
@given(SIZES, RATES, st.tuples(st.floats(-1, 2), st.floats(-1, 2)))
def test_each_point_of_the_unit_square_is_a_configuration_of_the_space(
    sizes: Any, rates: tuple[float, float], point: tuple[float, float]
) -> None:
    space = SearchSpace(sizes, rates)
    size, rate = space.from_unit(point)
    assert space.smallest <= size <= space.largest and rates[0] <= rate <= rates[1]
    assert isinstance(space.batch_size, tuple) or size in space.batch_size
