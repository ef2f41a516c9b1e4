"""A report as one screen: advice, table, doubts."""

from __future__ import annotations

import dataclasses
import html
import re
from io import StringIO

import pytest
from batchopt.machine.step_time import StepTimeFit
from batchopt.question.metric import Metric
from batchopt.report.answer.batch_sizes import BatchSizeRow
from batchopt.report.answer.confirmation import Confirmation, ConfirmedConfiguration
from batchopt.report.answer.evidence import Evidence
from batchopt.report.answer.intervals import Mean
from batchopt.report.answer.recommendation import MachineAdvice, Recommendation, Report
from batchopt.report.answer.targets import Reached, ToTarget, fastest_by_laws
from batchopt.report.show.blocks import Paragraph, Table
from batchopt.report.show.dashboard import note
from batchopt.report.show.document import document
from batchopt.report.show.page import page
from batchopt.report.show.sentences import alternatives, doubts, headline, target_sentences
from batchopt.report.show.tables import bar, training_table, worth_table
from batchopt.report.show.terminal import printed
from batchopt.search.advice import Advice, Estimate, Undecided
from batchopt.search.laws import StepsLaw
from rich.console import Console
from written_study import MACHINE, SPACE

BEST = Estimate(64, 0.0123, {}, 0.9375, 0.93, 0.945, 0.005, 0.5, seconds=90.0, runs=2, trial=7)
SMALL = Estimate(8, 0.001, {}, 0.92, 0.91, 0.93, 0.006, 0.01, seconds=360.0, runs=3, trial=-1, gap=0.0185)
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
    goal={"kind": "best", "epochs": 5},
    metric=Metric(),
    storage="sqlite:///studies.db",
    machine=MACHINE.describe(),
    trials={"pruned": 3, "complete": 2},
    recommendation=Recommendation(
        64, 0.0123, {}, "validation_accuracy", 0.9375, 0.93, 0.945, 0.9412, 90.0, 91.0, trial=7
    ),
    advice=ADVICE,
    by_batch_size=[
        BatchSizeRow(8, 0.001, 0.92, 5, 72.0, 40512.3, 3, 1, 0.25, 0.375, 0.0125, 5 << 20, -0.0155, 3.0, 1.0, 72.0),
        BatchSizeRow(64, 0.0123, 0.9375, 5, 18.0, 155763.0, 2),
        BatchSizeRow(512, 0.05, 0.935, 5, 9.0, 311526.0, 1),
    ],
    elapsed_seconds=100.0,
    to_target=ToTarget(
        0.92,
        [Reached(8, 0.001, 2, 1.0, 6250.0, 72.0, within_first=True), Reached(64, 0.0123, 7, 2.5, 1954.0, 45.0)],
        0.94,
        None,
    ),
)


def rendered(report: Report) -> list[str]:
    console = Console(file=StringIO(), width=120)
    console.print(printed(document(report)))
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
        "As good within 0.5 points and faster: 512 with learning rate 0.05, 2 times as fast.",
        "Against the common 32 at its own best rate, 0.01: +0.20 points, 1.3 times as fast.",
    ]


def test_a_table_is_no_wider_than_a_hundred_columns() -> None:
    console = Console(file=StringIO(), width=200)
    console.print(printed([[worth_table(REPORT), training_table(REPORT)]]))
    assert isinstance(console.file, StringIO)
    assert max(map(len, console.file.getvalue().splitlines())) <= 100


def test_the_laws_are_told_and_nothing_of_a_critical_batch_size_that_was_not_measured() -> None:
    law = StepsLaw(300.0, 200.0, 100.0, None, smallest=8.0, largest=1024.0, worst=0.1)
    target = ToTarget(0.92, [Reached(64, 0.0123, 7, 2.5, 1954.0, 45.0)], 0.94, law)
    step_time = StepTimeFit(4e-4, 3e-4, 5e-4, 2e-6, 1e-6, 3e-6, 8, 1024, 0.1, followed=True)
    report = dataclasses.replace(
        REPORT, to_target=target, step_time=step_time, fastest_by_laws=fastest_by_laws(law, step_time)
    )
    assert target_sentences(report) == [
        "Fastest to reach 92%: batch size 64 with learning rate 0.012, 45.0 s of training, 2.5 epochs.",
        "Steps to target = 300 (1 + B / batch size), within 10%. The critical batch size B is 200 "
        "(leave-one-out range: 100 and above).",
        "Combining both fits, time to target is shortest at batch size about 200.",
    ]
    for critical, side in ((2000.0, "above 1024, the largest"), (3.0, "below 8, the smallest")):
        out = dataclasses.replace(law, critical_batch_size=critical)
        said = target_sentences(dataclasses.replace(report, to_target=dataclasses.replace(target, law=out)))
        assert f"The critical batch size B is {side} that reached the target." in said[1]


def test_a_target_reached_within_the_first_epoch_is_said_to_be() -> None:
    early = ToTarget(0.9, [Reached(8, 0.001, 2, 1.0, 6250.0, 72.0, within_first=True)], 0.94, None)
    assert target_sentences(dataclasses.replace(REPORT, to_target=early))[:2] == [
        "Fastest to reach 90%: batch size 8 with learning rate 0.001, within the first epoch, "
        "at most 1 min 12 s of training.",
        "Reached within the first epoch, too early for a fit: 8.",
    ]


def test_where_nothing_faster_is_as_good_that_is_said() -> None:
    alone = dataclasses.replace(ADVICE, by_batch_size=[SMALL, BEST], as_good=[64], fastest=BEST)
    assert alternatives(dataclasses.replace(REPORT, advice=alone)) == [
        "No faster batch size is as good within 0.5 points."
    ]


def test_what_the_data_cannot_tell_is_said_with_the_runs_that_would() -> None:
    assert doubts(REPORT) == [
        "Not distinguishable from 32 and 512 with these data (run-to-run standard deviation 0.2 points).",
        "About 4 more runs of it and of 512 each would probably separate these two: 9 min 00 s of training.",
    ]
    alike = dataclasses.replace(ADVICE, undecided=[Undecided(32, 0.4, None, None)])
    assert doubts(dataclasses.replace(REPORT, advice=alike))[1] == (
        "They differ by so little that no reasonable number of runs would separate them."
    )
    sure = dataclasses.replace(REPORT, advice=dataclasses.replace(ADVICE, undecided=[]))
    assert doubts(sure) == []


def test_without_a_complete_trial_there_is_nothing_to_recommend_and_that_is_said() -> None:
    lines = rendered(dataclasses.replace(REPORT, recommendation=None, by_batch_size=[], trials={}))
    assert lines[0] == "Study mnist has no complete trial yet, so there is nothing to recommend."
    assert lines[-1] == "study mnist in sqlite:///studies.db; trials: none"


def test_where_complete_trials_are_all_alike_that_is_said_and_not_that_there_is_none() -> None:
    lines = rendered(dataclasses.replace(REPORT, recommendation=None, advice=None, trials={"complete": 3}))
    assert "tell no batch size from another" in lines[0]


def test_the_table_shows_each_batch_size_and_marks_the_recommended_one() -> None:
    lines = rendered(REPORT)
    words = [line.split() for line in lines]
    small = ["8", "~0.001", "92.00%", "91.00", "to", "93.00%", 6 * "\N{FULL BLOCK}", "-1.55", "3", "360"]
    assert small in words, "nobody trained at this rate, so it is marked"
    assert any(line.startswith("vs 32: ") and "~" in line for line in lines)
    assert ["8", "40,512", "5", "MiB", "+0.125", "0.013", "3", "1", "<72", "<1"] in words
    assert [*("64", "0.012", "93.75%", "93.00", "to", "94.50%"), 8 * "\N{FULL BLOCK}"] in [line[:7] for line in words]
    assert [line[-1] for line in words if line[:2] == ["64", "0.012"]] == ["recommended"]
    assert [line[-3:] for line in words if line[:2] == ["512", "0.05"]] == [["as", "good,", "fastest"]]
    assert lines[-1] == "study mnist in sqlite:///studies.db; trials: 2 complete, 3 pruned"


@pytest.mark.parametrize(("gap", "blocks"), [(0.0, 8), (0.0049, 8), (0.0099, 7), (0.0199, 6), (0.5, 1)])
def test_a_bar_loses_a_block_with_each_doubling_of_the_distance(gap: float, blocks: int) -> None:
    assert len(bar(dataclasses.replace(LARGE, gap=gap), ADVICE)) == blocks


def test_a_batch_size_without_a_finite_accuracy_is_shown_without_infinities() -> None:
    row = BatchSizeRow(4096, 0.1, None, 1, 0.1, 1e5, 1)
    text = "\n".join(rendered(dataclasses.replace(REPORT, by_batch_size=[*REPORT.by_batch_size, row])))
    assert "diverged" in text
    assert "inf" not in text
    assert "nan" not in text


def test_a_name_in_brackets_is_shown_as_it_is() -> None:
    assert "study a [bold] name in" in rendered(dataclasses.replace(REPORT, study="a [bold] name"))[-1]


def test_the_terminal_the_page_and_the_note_say_the_same() -> None:
    """Whatever a report has, fronts, machines and what was confirmed included, no printer leaves a word of it out."""
    machine = MachineAdvice("abacus", "Abacus, 8 cores", 64, 0.01, 90.0, 512, None)
    mean = Mean(0.95, 0.94, 0.96, 0.01, 3)
    row = ConfirmedConfiguration("recommended", 64, 0.0123, {}, 0, 0, mean, mean, mean, None, None)
    confirmed = Confirmation(True, None, 1, 5, [row], 64, 0.01, 0.01, 3, 1)
    report = dataclasses.replace(REPORT, front=[LARGE, BEST], machines=[machine], confirmation=confirmed)
    sections = document(report)
    texts = [block.text for section in sections for block in section if isinstance(block, Paragraph)]
    texts += [
        cell for section in sections for b in section if isinstance(b, Table) for cells, _ in b.rows for cell in cells
    ]
    everywhere = {
        "terminal": " ".join(rendered(report)),
        "page": html.unescape(
            page(Evidence(dataclasses.replace(report, by_batch_size=REPORT.by_batch_size), [], SPACE))
        ),
        "note": note(report).replace("\\", ""),
    }
    for printer, said in everywhere.items():
        for text in texts:
            assert text.split() == [] or re.sub(r"\s+", " ", text) in re.sub(r"\s+", " ", said), (printer, text)
