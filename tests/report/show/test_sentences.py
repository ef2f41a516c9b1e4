"""A report as one screen: advice, table, doubts."""

from __future__ import annotations

import dataclasses
import html
import re
from io import StringIO

import pytest
from batchopt.machine.step_time import StepTimeFit
from batchopt.question.goal import Goal
from batchopt.question.metric import Metric
from batchopt.question.space import SearchSpace
from batchopt.report.answer.batch_sizes import BatchSizeRow
from batchopt.report.answer.confirmation import Confirmation, ConfirmedConfiguration
from batchopt.report.answer.evidence import Evidence
from batchopt.report.answer.goals import targeted
from batchopt.report.answer.intervals import Mean
from batchopt.report.answer.outlook import against_default, edges, too_few, untrained
from batchopt.report.answer.recommendation import MachineAdvice, Recommendation, Report
from batchopt.report.answer.targets import Reached, ToTarget, fastest_by_laws
from batchopt.report.show.advice_view import advice_sentences, headline
from batchopt.report.show.blocks import Paragraph, Table
from batchopt.report.show.dashboard import note
from batchopt.report.show.document import document
from batchopt.report.show.page import page
from batchopt.report.show.sentences import doubts, target_sentences
from batchopt.report.show.tables import MOST_ROWS, answer_table
from batchopt.report.show.terminal import printed
from batchopt.search.advice import Advice, AgainstDefault, Estimate, Undecided
from batchopt.search.laws import StepsLaw
from rich.console import Console
from written_study import MACHINE, SPACE

METRIC = Metric()
BEST = Estimate(64, 0.0123, {}, 0.9375, 0.93, 0.945, 0.005, 0.86, 0.5, seconds=90.0, epochs=5.0, runs=2, trial=7)
SMALL = Estimate(8, 0.001, {}, 0.938, 0.91, 0.95, 0.006, 0.6, 0.52, seconds=360.0, epochs=5.0, runs=3, trial=-1)
COMMON = Estimate(32, 0.01, {}, 0.9355, 0.929, 0.942, 0.005, 0.7, 0.4, seconds=120.0, epochs=5.0, runs=1, trial=4)
LARGE = Estimate(512, 0.05, {}, 0.9275, 0.92, 0.935, 0.003, 0.1, 0.1, seconds=45.0, epochs=5.0, runs=1, trial=5)
ADVICE = Advice(
    recommended=BEST,
    prefer="balanced",
    best=SMALL,
    fastest=BEST,
    complete=True,
    by_batch_size=[SMALL, COMMON, BEST, LARGE],
    tolerance=0.005,
    tolerance_is="runs",
    as_good=[64],
    undecided=[Undecided(32, 0.4, None, None), Undecided(512, 0.3, 4, 540.0)],
    run_sd=0.005,
    against_default=AgainstDefault(32, 0.001, 0.97, 0.004, 0.001, 0.008, 120.0),
)
REPORT = Report(
    study="mnist",
    goal={"kind": "best", "epochs": 5},
    metric=Metric(),
    storage="sqlite:///studies.db",
    machine=MACHINE.describe(),
    trials={"pruned": 3, "complete": 2},
    recommendation=Recommendation(
        64, 0.0123, {}, "validation_accuracy", 0.9375, 0.93, 0.945, 0.86, 0.005, 90.0, 5.0, 0.9412, 91.0, trial=7
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


def test_the_first_lines_say_what_to_use_how_sure_that_is_what_it_costs_and_what_would_be_better() -> None:
    assert [headline(REPORT), *advice_sentences(REPORT)] == [
        "Use batch size 64 with learning rate 0.012.",
        "93.75% validation accuracy expected after 5 epochs (90 % interval 93.00 to 94.50%), 1 min 30 s of training: "
        "1.3 times as fast as batch size 32, as accurate.",
        "With 86 % probability no batch size is better by more than 0.5 points, which is what two runs of one "
        "configuration differ by. Nothing tried is clearly better. 8 might gain 0.05 points (even odds) and takes "
        "4 times as long; 512 is twice as fast and likely loses 1 point.",
    ]


def test_where_it_is_not_sure_that_is_said_with_what_would_make_it_so() -> None:
    unsure = dataclasses.replace(BEST, chance_within=0.57)
    advice = dataclasses.replace(ADVICE, recommended=unsure, by_batch_size=[SMALL, COMMON, unsure, LARGE])
    said = advice_sentences(dataclasses.replace(REPORT, advice=advice))[1]
    assert said.startswith(
        "What is best is not clear yet: with 57 % probability no batch size is better by more than 0.5 points"
    )
    assert too_few(advice) == [
        "Too few trials to be surer: 4 more runs each of 64 and of 512 would tell the two apart in 8 of 10 cases, for "
        "9 min 00 s of training."
    ]
    assert too_few(ADVICE) == []


def test_a_metric_that_is_no_accuracy_has_its_own_words_and_numbers() -> None:
    mae, worse = Metric("mae", "minimize"), dataclasses.replace(LARGE, mean=0.95)
    advice = dataclasses.replace(ADVICE, by_batch_size=[SMALL, COMMON, BEST, worse])
    said = advice_sentences(dataclasses.replace(REPORT, metric=mae, advice=advice))
    assert said[0].startswith("Validation mae 0.9375 expected after 5 epochs (90 % interval 0.93 to 0.945), ")
    assert said[1].endswith("512 is twice as fast and likely loses 0.012.")
    assert "points" not in " ".join(said) and "accura" not in " ".join(said)


def test_the_advice_names_the_extra_dimensions() -> None:
    assert REPORT.recommendation is not None
    extra = dataclasses.replace(REPORT.recommendation, extra={"dropout": 0.25})
    assert headline(dataclasses.replace(REPORT, recommendation=extra)).endswith("learning rate 0.012, dropout 0.25.")


def test_what_is_gained_over_the_default_is_said_with_its_probability() -> None:
    assert against_default(ADVICE.against_default, ADVICE, METRIC) == [
        "Against what most would use, batch size 32 with learning rate 0.001: better with 97 % probability, by 0.4 "
        "points (90 % interval 0.10 to 0.80 better), and 1.3 times as fast."
    ]
    behind = dataclasses.replace(ADVICE.against_default, chance=0.38, gain=-0.0014, low=-0.0097, high=0.0152)
    (said,) = against_default(behind, ADVICE, METRIC)
    assert "worse with 62 % probability, by 0.14 points (90 % interval 0.97 worse to 1.52 better)" in said
    lost = dataclasses.replace(behind, low=-0.0097, high=-0.0002)
    assert "(90 % interval 0.02 to 0.97 worse)" in against_default(lost, ADVICE, METRIC)[0]
    assert against_default(None, ADVICE, METRIC) == []


def test_what_is_printed_has_no_blanks_at_the_ends_of_its_lines() -> None:
    console = Console(file=StringIO(), width=40)
    rows = [(("8", "97 %", "as good"), False), (("64", "97 %", "recommended"), True)]
    under = Paragraph("No batch size is better by more than what two runs differ by.", "under")
    console.print(printed([[under], [Table(("batch size", "expected", "verdict"), rows)]]))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 6 and "as good" in lines[4]
    assert lines == [line.rstrip() for line in lines]


@pytest.mark.parametrize(
    ("size", "rate", "option"),
    [
        (512, 0.01, "--batch-sizes 8..4096 in another --study"),
        (8, 0.01, "--batch-sizes 1..512 in another --study"),
        (64, 0.1, "--learning-rates 0.0001..1 in another --study"),
        (64, 1e-4, "--learning-rates 1e-05..0.1 in another --study"),
    ],
)
def test_at_an_edge_of_the_space_the_option_that_widens_it_is_named(size: int, rate: float, option: str) -> None:
    space = SearchSpace([8, 64, 512], (1e-4, 1e-1))
    row = dataclasses.replace(BEST, batch_size=size, learning_rate=rate)
    advice = dataclasses.replace(ADVICE, recommended=row, best=row)
    (said,) = edges(advice, space, most=50_000)
    assert option in said
    soonest = Goal("time", target=0.97)
    (of_time,) = edges(advice, space, most=50_000, to_target=targeted(soonest, METRIC))
    assert "may be sooner" in of_time and option in of_time
    inside = dataclasses.replace(row, batch_size=64, learning_rate=0.01)
    assert edges(dataclasses.replace(ADVICE, recommended=inside, best=inside), space, most=50_000) == []


def test_no_larger_batch_size_is_proposed_than_there_are_examples() -> None:
    row = dataclasses.replace(BEST, batch_size=512)
    advice = dataclasses.replace(ADVICE, recommended=row, best=row)
    assert edges(advice, SearchSpace([8, 64, 512], (1e-4, 1e-1)), most=600) == []


def test_what_was_never_trained_to_its_end_is_said_to_be() -> None:
    never = dataclasses.replace(ADVICE, recommended=SMALL)
    assert untrained(ADVICE) == [] and "No trial was trained to the end" in untrained(never)[0]


def test_the_first_table_fits_eighty_columns_and_no_digit_is_cut() -> None:
    for width in (80, 60):
        console = Console(file=StringIO(), width=width)
        console.print(printed(document(REPORT, details=False)))
        assert isinstance(console.file, StringIO)
        lines = console.file.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        assert "\N{HORIZONTAL ELLIPSIS}" not in console.file.getvalue()
    wide = Console(file=StringIO(), width=200)
    wide.print(printed([[answer_table(REPORT)]]))
    assert isinstance(wide.file, StringIO)
    assert max(len(line.rstrip()) for line in wide.file.getvalue().splitlines()) <= 80


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


def test_what_the_data_cannot_tell_is_said_with_the_runs_that_would() -> None:
    tried = dataclasses.replace(
        REPORT, by_batch_size=[*REPORT.by_batch_size, BatchSizeRow(32, 0.01, 0.93, 5, 24.0, 120000.0, 1)]
    )
    assert doubts(tried) == [
        "Not distinguishable from 32 and 512 with these data (run-to-run standard deviation 0.5 points).",
        "About 4 more runs each of it and of 512 would tell the two apart in 8 of 10 cases: 9 min 00 s of training.",
    ]
    # The table has no row of what nobody tried.
    assert doubts(REPORT)[0].startswith("Not distinguishable from 512 with")
    # Where the advice is not sure, the runs that would tell were said with it.
    unsure = dataclasses.replace(ADVICE, recommended=dataclasses.replace(BEST, chance_within=0.57))
    assert len(doubts(dataclasses.replace(tried, advice=unsure))) == 1
    alike = dataclasses.replace(ADVICE, undecided=[Undecided(32, 0.4, None, None)])
    assert doubts(dataclasses.replace(tried, advice=alike))[1] == (
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


def test_the_tables_show_each_batch_size_and_mark_the_recommended_one() -> None:
    words = [line.split() for line in rendered(REPORT)]
    small = ["8", "~0.001", "93.80%", "91.00", "to", "95.00%", "6", "min", "00", "s", "may", "be", "as", "good"]
    assert small in words, "nobody trained at this rate, so it is marked"
    assert ["8", "40,512", "5", "MiB", "+0.125", "0.013", "1", "<72", "<1"] in words
    assert [line[-1] for line in words if line[:2] == ["64", "0.012"]] == ["recommended"]
    assert [line[-2:] for line in words if line[:2] == ["512", "0.05"]] == [["likely", "worse"]]
    assert rendered(REPORT)[-1] == "study mnist in sqlite:///studies.db; trials: 2 complete, 3 pruned"


def test_intervals_lie_on_one_scale_with_the_band_of_what_is_as_good() -> None:
    marks = answer_table(REPORT).marks
    assert len(marks) == 3
    for mark in marks:
        assert mark is not None and 0 <= mark.low <= mark.middle <= mark.high <= 1
        assert mark.band == marks[0].band  # type: ignore[union-attr]


def test_of_many_batch_sizes_the_first_table_shows_those_that_matter() -> None:
    sizes = [*range(8, 40), 64]
    rows = [BatchSizeRow(size, 0.01, 0.9, 5, 1.0, 1000.0, 1) for size in sizes]
    shown = [int(cells[0]) for cells, _ in answer_table(dataclasses.replace(REPORT, by_batch_size=rows)).rows]
    assert len(shown) == MOST_ROWS and {8, 32, 64} <= set(shown) and shown == sorted(shown)


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
