"""What the terminal shows, as text of 100 columns."""

from __future__ import annotations

import dataclasses
from io import StringIO

import pytest
from batchopt.events import (
    Confirmed,
    Confirming,
    Ended,
    Noted,
    Opened,
    Probing,
    Starting,
    Stepped,
    Trained,
    TrainingModel,
    TrialEnded,
)
from batchopt.measured import EngineTiming
from batchopt.question.metric import Metric
from batchopt.question.options import Configuration
from batchopt.report.show.live import LiveView, PlainView, opened_lines, step_line, trial_line
from batchopt.report.show.terminal import LAST_TRIALS, trials_table
from batchopt.search.steps import Step
from batchopt.store.confirmations import ConfirmationRun
from batchopt.store.history import TrialRecord
from batchopt.words import duration
from rich.console import Console, RenderableType
from written_study import MACHINE, epoch

OPENED = Opened(
    study="mnist",
    storage="sqlite:///studies.db",
    machine=MACHINE,
    engine="fused-xla",
    timings=(EngineTiming("fused-xla", 1e-4, 2.0), EngineTiming("fused", 2.5e-4, 1.0)),
    epochs=5,
    metric=Metric(),
    trials=30,
    finished=0,
    running=0,
)
COMPLETE = TrialEnded(7, "complete", 64, 0.0123, Metric(), 0.9375, epochs=5, train_seconds=1.5)


def rendered(*views: RenderableType) -> list[str]:
    console = Console(file=StringIO(), width=100)
    console.print(*views)
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def record(number: int, **changes: object) -> TrialRecord:
    row = {"value": 0.9, "validation_loss": 0.25, "train_seconds": 2.0, "machine": "m"}
    return dataclasses.replace(TrialRecord(number, 1, "complete", 64, 0.01, {}, 0.9, [row], ""), **changes)


def test_trials_are_a_row_each_whatever_became_of_them() -> None:
    waiting = record(2, state="waiting", batch_size=None, learning_rate=None, value=None, epochs=[])
    lines = rendered(
        trials_table([record(0), waiting, record(3, state="pruned", value=None, note="out of memory")], Metric())
    )
    assert lines[0].split()[:4] == ["trial", "state", "batch", "size"]
    assert lines[1].split() == ["0", "complete", "64", "0.01", "90.00%", "0.2500", "1", "2.00"]
    assert lines[2].split() == ["2", "waiting", "0", "0.00"]
    assert lines[3].endswith("out of memory")
    assert len(lines) == 4


def test_a_long_note_does_not_cut_the_figures() -> None:
    """Only its first line is shown; where that is too long, it and not the numbers give way."""
    failed = record(3, state="fail", value=None, note="the worker ended by signal SIGKILL\nits last words")
    lines = rendered(trials_table([failed], Metric()))
    assert lines[0].split() == [
        *("trial", "state", "batch", "size", "learning", "rate", "accuracy", "loss", "epochs", "train", "s", "note")
    ]
    assert lines[1].split()[:8] == ["3", "fail", "64", "0.01", "90.00%", "0.2500", "1", "2.00"]
    assert "the worker" in lines[1]
    assert "last words" not in "\n".join(lines)


def test_the_study_the_machine_and_the_engine_are_a_line_each() -> None:
    assert opened_lines(OPENED) == [
        "study    mnist in sqlite:///studies.db (new, 30 in all)",
        "machine  CPU Abacus, 2 cores, no GPU, 8 GiB",
        "engine   fused-xla (fused-xla 100 us a step, 2.0 s to compile; fused 250 us a step, 1.0 s to compile)",
    ]


def test_a_study_that_goes_on_says_how_far_it_is() -> None:
    line = opened_lines(dataclasses.replace(OPENED, finished=12, running=1))[0]
    assert line == "study    mnist in sqlite:///studies.db (12 trials finished, 30 in all, 1 to be taken up again)"
    assert "(1 trial finished, 30 in all)" in opened_lines(dataclasses.replace(OPENED, finished=1))[0]
    assert "in all" not in opened_lines(dataclasses.replace(OPENED, trials=None))[0]


def test_a_gpu_is_named_and_a_single_core_is_one() -> None:
    gpu = dataclasses.replace(MACHINE, kind="gpu", device="NVIDIA H100", cores=1)
    assert opened_lines(dataclasses.replace(OPENED, machine=gpu))[1] == "machine  GPU NVIDIA H100, 1 core, 8 GiB"


def test_an_engine_that_cannot_be_used_says_why_and_a_pinned_one_says_nothing() -> None:
    refused = (*OPENED.timings, EngineTiming("fit", 0.0, 0.0, refusal="it is not compiled"))
    assert opened_lines(dataclasses.replace(OPENED, timings=refused))[2].endswith("; fit refused: it is not compiled)")
    assert opened_lines(dataclasses.replace(OPENED, timings=()))[2] == "engine   fused-xla"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0.04, "0.04 s"),
        (1.25, "1.2 s"),
        (60, "1 min 00 s"),
        (59.99, "1 min 00 s"),
        (61, "1 min 01 s"),
        (3599.6, "1 h 00 min"),
        (90_061, "25 h 01 min"),
    ],
)
def test_a_duration_reads_well(amount: float, text: str) -> None:
    assert duration(amount) == text


def test_a_trial_is_one_line() -> None:
    assert trial_line(COMPLETE).split() == [
        *("trial", "7", "64", "x", "0.0123", "93.75%", "5", "epochs", "1.50", "s", "complete")
    ]
    early = dataclasses.replace(COMPLETE, state="pruned", value=None, epochs=0, note="out of memory")
    assert trial_line(early).endswith("out of memory")
    assert " - " in trial_line(early)


def test_off_the_terminal_a_trial_is_a_line_and_an_epoch_is_none() -> None:
    console = Console(file=StringIO(), width=100)
    with PlainView(console) as view:
        for event in (
            Starting(1),
            OPENED,
            Stepped(Step(7, 64, 0.0123, until_epoch=1)),
            Trained(7, epoch(1), 0.0),
            Noted("trial 7: the worker ended by [signal] SIGKILL; it is taken up again"),
            COMPLETE,
            Ended("the trials of this study are used up"),
        ):
            view(event)
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue().splitlines() == [
        *opened_lines(OPENED),
        "trial 7: the worker ended by [signal] SIGKILL; it is taken up again",
        trial_line(COMPLETE),
        "ended: the trials of this study are used up",
    ]


def test_off_the_terminal_a_trial_that_another_one_goes_before_is_said_to_be_paused() -> None:
    console = Console(file=StringIO(), width=100)
    with PlainView(console) as view:
        for event in (
            Probing(8, 0, 6),
            Probing(64, 1, 6),
            OPENED,
            Stepped(Step(7, 64, 0.0123, until_epoch=1)),
            Trained(7, epoch(1), 0.0),
            # It goes on at once.
            Stepped(Step(7, 64, 0.0123, from_epoch=1, until_epoch=2)),
            Trained(7, epoch(2), 0.0),
            Stepped(Step(8, 32, 0.01, until_epoch=1)),
        ):
            view(event)
    assert isinstance(console.file, StringIO)
    said = console.file.getvalue().splitlines()
    assert said[0].startswith("measuring the machine") and said[1:-1] == opened_lines(OPENED)
    assert said[-1].startswith("trial   7      64 x 0.0123") and said[-1].endswith("2 epochs            paused")


def live(*events: object) -> LiveView:
    view = LiveView(Console(file=StringIO(), width=100, force_terminal=True))
    for event in events:
        view(event)  # type: ignore[arg-type]
    return view


def ending(trial: int, accuracy: float, state: str = "complete") -> TrialEnded:
    return TrialEnded(trial, state, 64, 0.01, Metric(), accuracy, epochs=5, train_seconds=1.0)


def test_the_live_view_says_what_is_being_done_before_the_study_is_open() -> None:
    assert rendered(live())[0] == "checking ..."
    assert rendered(live(Starting(1)))[0] == "starting TensorFlow, loading data, timing the engines ..."


def test_the_live_view_shows_the_trial_under_way_and_why() -> None:
    step = Step(0, 64, 0.0123, until_epoch=5, reason="queued")
    lines = rendered(live(OPENED, Stepped(step), Trained(0, epoch(2), 0.0)))
    (line,) = (line for line in lines if "trial 0: 64 x 0.0123" in line)
    assert "2/5" in line
    assert lines[-1] == "trial 0 queued: 64 x 0.0123, 0 of 5 epochs"


def test_a_trial_that_is_put_aside_has_no_bar() -> None:
    step = Step(0, 64, 0.0123, until_epoch=2, reason="new")
    lines = rendered(live(OPENED, Stepped(step), Trained(0, epoch(2), 0.0)))
    assert not any("trial 0: 64 x 0.0123" in line for line in lines)


def test_the_live_view_shows_the_incumbent_and_never_a_pruned_trial_as_such() -> None:
    lines = rendered(live(OPENED, ending(0, 0.8), ending(1, 0.9), ending(2, 0.99, "pruned"), ending(3, 0.85)))
    assert "best so far  64 x 0.01  90.00%  (trial 1)" in lines


def test_the_incumbent_of_a_study_that_is_resumed_is_the_whole_studys() -> None:
    resumed = dataclasses.replace(OPENED, finished=2, best=ending(1, 0.9))
    assert "best so far  64 x 0.01  90.00%  (trial 1)" in rendered(live(resumed, ending(2, 0.8)))
    assert "best so far  64 x 0.01  95.00%  (trial 3)" in rendered(live(resumed, ending(2, 0.8), ending(3, 0.95)))


def test_the_live_view_keeps_the_last_trials_and_counts_them_all() -> None:
    count = LAST_TRIALS + 3
    begun = [Stepped(Step(trial, 64, 0.01, until_epoch=5)) for trial in range(count)]
    lines = rendered(live(OPENED, *begun, *(ending(trial, 0.5) for trial in range(count))))
    shown = [int(line.split()[1]) for line in lines if line.endswith("complete")]
    assert shown == list(range(3, count))
    assert any(f"{count}/30" in line for line in lines)


def test_a_trial_that_ends_before_its_first_step_here_does_no_harm() -> None:
    assert "trial   7" in "\n".join(rendered(live(OPENED, COMPLETE)))


def test_the_live_view_leaves_the_study_behind_on_the_screen() -> None:
    console = Console(file=StringIO(), width=100)
    with LiveView(console) as view:
        view(OPENED)
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue().endswith("\n".join(opened_lines(OPENED)) + "\n")


def test_a_step_is_shown_with_what_it_promises_and_costs() -> None:
    step = Step(
        7, 64, 0.003, until_epoch=26, from_epoch=13, expected_gain=0.004, expected_seconds=12, reason="continues"
    )
    assert step_line(step, 52, Metric()) == (
        "trial 7 continues: 64 x 0.003, 13 of 52 epochs, expected gain 0.4 points for 12 s"
    )
    assert step_line(Step(0, 128, 0.00316, until_epoch=2, reason="first"), 5, Metric()) == (
        "trial 0 first: 128 x 0.00316, 0 of 5 epochs"
    )


def test_a_run_that_confirms_has_a_bar_and_then_a_line_without_what_the_test_set_says() -> None:
    run = ConfirmationRun("plan", "reference", 1, 30, "m", 32, 0.01, {}, 9, 5, 1.5, 0.9375, 0.25, 0.875)
    confirming = Confirming("reference", Configuration(32, 0.01), run=1, epoch=2, epochs=5)
    confirmed = Confirmed(run, Metric(), seeds=5, done=4, of=10)
    for before in ((OPENED,), ()):
        console = Console(file=StringIO(), width=100)
        view = LiveView(console)
        for event in (*before, confirming, confirmed):
            view(event)
        lines = rendered(view)
        assert any("reference: 32 x 0.01, run 2" in line and "2/5" in line for line in lines)
        assert any("confirming" in line and "4/10" in line for line in lines)
        said = console.file.getvalue()  # type: ignore[attr-defined]
        assert said.split() == [
            *("confirm", "4/10", "reference", "32", "x", "0.01", "93.75%", "run", "2", "of", "5", "1.50", "s")
        ]


def test_the_model_that_is_kept_has_a_bar_or_else_a_line_for_each_epoch() -> None:
    begun = TrainingModel(Configuration(64, 0.01), Metric(), 0, 5)
    trained = TrainingModel(Configuration(64, 0.01), Metric(), 2, 5, epoch(2))
    for before in ((OPENED,), ()):
        view = LiveView(Console(file=StringIO(), width=100))
        for event in (*before, begun, trained):
            view(event)
        assert any("model: 64 x 0.01, 90.00%" in line and "2/5" in line for line in rendered(view))
    console = Console(file=StringIO(), width=100)
    for event in (begun, trained):
        PlainView(console)(event)
    assert console.file.getvalue() == "model epoch  2/5      64 x 0.01       90.00%    2.00 s\n"  # type: ignore[attr-defined]
