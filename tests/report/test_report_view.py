"""A report as one screen: advice, table, doubts."""

from __future__ import annotations

import dataclasses
from io import StringIO

import pytest
from rich.console import Console, RenderableType
from written_study import MACHINE

from optimizer.report.recommendation import BatchSizeRow, Recommendation, Report
from optimizer.report.report_view import alternatives, bar, doubts, headline, report_view
from optimizer.search.advice import Advice, Estimate, Undecided

BEST = Estimate(64, 0.0123, {}, 0.9375, 0.93, 0.945, 0.005, 0.5, seconds=90.0, runs=2, trial=7)
SMALL = Estimate(8, 0.001, {}, 0.92, 0.91, 0.93, 0.006, 0.01, seconds=360.0, runs=3, trial=2)
COMMON = Estimate(32, 0.01, {}, 0.9355, 0.929, 0.942, 0.005, 0.4, seconds=120.0, runs=1, trial=4)
LARGE = Estimate(512, 0.05, {}, 0.935, 0.93, 0.94, 0.003, 0.3, seconds=45.0, runs=1, trial=5)
ADVICE = Advice(
    best=BEST,
    complete=True,
    by_batch_size=[SMALL, COMMON, BEST, LARGE],
    tolerance=0.005,
    as_good=[32, 64, 512],
    fastest=LARGE,
    undecided=[Undecided(32, 0.4, None, None), Undecided(512, 0.3, 4, 540.0)],
    run_sd=0.002,
)
REPORT = Report(
    study="mnist",
    goal={"kind": "accuracy", "epochs": 5},
    storage="sqlite:///studies.db",
    machine=MACHINE.describe(),
    trials={"pruned": 3, "complete": 2},
    recommendation=Recommendation(64, 0.0123, {}, 0.9375, 0.93, 0.945, 0.9412, 90.0, trial=7),
    advice=ADVICE,
    by_batch_size=[
        BatchSizeRow(8, 0.001, 0.92, 5, 72.0, 40512.3, 3),
        BatchSizeRow(64, 0.0123, 0.9375, 5, 18.0, 155763.0, 2),
        BatchSizeRow(512, 0.05, 0.935, 5, 9.0, 311526.0, 1),
    ],
    elapsed_seconds=100.0,
)


def rendered(view: RenderableType) -> list[str]:
    console = Console(file=StringIO(), width=120)
    console.print(view)
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_advice_is_what_is_expected_with_its_interval_and_not_what_was_lucky() -> None:
    assert headline(REPORT) == (
        "Use batch size 64 with learning rate 0.012: 93.75% validation accuracy expected after 5 epochs "
        "(93.00 to 94.50%), 1 min 30 s of training."
    )


def test_the_advice_names_the_extra_dimensions() -> None:
    assert REPORT.recommendation is not None
    extra = dataclasses.replace(REPORT.recommendation, extra={"dropout": 0.25})
    assert "learning rate 0.012, dropout 0.25: " in headline(dataclasses.replace(REPORT, recommendation=extra))


def test_what_is_as_good_and_faster_is_named_and_what_the_default_would_be_worth() -> None:
    assert alternatives(REPORT) == [
        "As good within 0.5 points and faster: 512 with learning rate 0.05, 0.5 of the time.",
        "Against the common 32 at its own best rate, 0.01: +0.20 points, 0.75 of the time.",
    ]


def test_where_nothing_faster_is_as_good_that_is_said() -> None:
    alone = dataclasses.replace(ADVICE, by_batch_size=[SMALL, BEST], as_good=[64], fastest=BEST)
    assert alternatives(dataclasses.replace(REPORT, advice=alone)) == [
        "No faster batch size is as good within 0.5 points."
    ]


def test_what_the_data_cannot_tell_is_said_with_the_runs_that_would() -> None:
    assert doubts(REPORT) == [
        "The data cannot tell it from 32, 512; runs differ by 0.2 points (standard deviation).",
        "4 more runs each of it and of 512 would, 9 min 00 s of training.",
    ]
    sure = dataclasses.replace(REPORT, advice=dataclasses.replace(ADVICE, undecided=[]))
    assert doubts(sure) == []


def test_without_a_complete_trial_there_is_nothing_to_recommend_and_that_is_said() -> None:
    lines = rendered(report_view(dataclasses.replace(REPORT, recommendation=None, by_batch_size=[], trials={})))
    assert lines[0] == "Study mnist has no complete trial yet, so there is nothing to recommend."
    assert lines[-1] == "study mnist in sqlite:///studies.db; trials: none"


def test_the_table_shows_each_batch_size_and_marks_the_recommended_one() -> None:
    lines = rendered(report_view(REPORT))
    words = [line.split() for line in lines]
    assert ["8", "0.001", "92.00%", "91.00", "to", "93.00%", 6 * "\N{FULL BLOCK}", "360", "40,512", "3"] in words
    assert [*("64", "0.012", "93.75%", "93.00", "to", "94.50%"), 8 * "\N{FULL BLOCK}"] in [line[:7] for line in words]
    assert [line[-1] for line in words if line[:1] == ["64"]] == ["recommended"]
    assert [line[-3:] for line in words if line[:1] == ["512"]] == [["as", "good,", "fastest"]]
    assert lines[-1] == "study mnist in sqlite:///studies.db; trials: 2 complete, 3 pruned"


@pytest.mark.parametrize(("gap", "blocks"), [(0.0, 8), (0.0049, 8), (0.0099, 7), (0.0199, 6), (0.5, 1)])
def test_a_bar_loses_a_block_with_each_doubling_of_the_distance(gap: float, blocks: int) -> None:
    assert len(bar(dataclasses.replace(BEST, mean=BEST.mean - gap), ADVICE)) == blocks


def test_a_batch_size_without_a_finite_accuracy_is_shown_without_infinities() -> None:
    row = BatchSizeRow(4096, 0.1, None, 1, 0.1, 1e5, 1)
    text = "\n".join(rendered(report_view(dataclasses.replace(REPORT, by_batch_size=[*REPORT.by_batch_size, row]))))
    assert "diverged" in text
    assert "inf" not in text
    assert "nan" not in text


def test_a_name_in_brackets_is_shown_as_it_is() -> None:
    assert "study a [bold] name in" in rendered(report_view(dataclasses.replace(REPORT, study="a [bold] name")))[-1]
