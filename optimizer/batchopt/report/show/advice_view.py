"""The advice in words, for every goal: what to use, how sure that is, what it costs, what would be better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchopt.goals.to_target import ToTargetKind
from batchopt.question.goal import Goal
from batchopt.question.space import COMMON_BATCH_SIZE
from batchopt.report.answer.goals import targeted
from batchopt.report.answer.recommendation import Recommendation, Report
from batchopt.search.preference import EVEN
from batchopt.text import printable
from batchopt.words import chance, compared, counted, duration, extra_words, less_or_more, shown_energy

if TYPE_CHECKING:
    from batchopt.report.answer.goals import TargetAnswer
    from batchopt.search.advice import Advice, Estimate

FASTER = 0.95
"""Of the recommended one's seconds: what needs more is not called faster, as timings differ by some per cent."""

UNLIKELY = 0.05
"""What is less likely than this to be better is not worth a word."""


def headline(report: Report) -> str:
    """The advice in one sentence; where there is none, why."""
    best = report.recommendation
    if best is not None:
        return f"Use batch size {best.batch_size} with learning rate {best.learning_rate:.2g}{extra_words(best.extra)}."
    if report.at_target is not None:
        return _not_reached(report, report.at_target)
    if report.trials.get("complete"):
        return f"The trials of study {printable(report.study)} tell no batch size from another: nothing to recommend."
    return f"Study {printable(report.study)} has no complete trial yet, so there is nothing to recommend."


def advice_sentences(report: Report) -> list[str]:
    """What is expected of it and what it costs, how sure that is, and what would be better."""
    best, advice = report.recommendation, report.advised
    if best is None or advice is None:
        return []
    said = [_expected(report, best, advice), f"{_sure(report, advice)} {_others(report, advice)}".strip()]
    return [*said, *_drawn(report, best)]


def _expected(report: Report, best: Recommendation, advice: Advice) -> str:
    metric, default = report.metric, advice.at(COMMON_BATCH_SIZE)
    # What was never tried is only guessed, and no first line is built on that.
    tried = default is not None and default.runs > 0 and default is not advice.recommended
    against = f": {_against(report, advice, default)}" if tried and default is not None else ""
    if (goal := _to_target(report)) is not None:
        needed = goal.expected(best.expected, best.low, best.high, best.seconds)
        return f"{goal.target} validation {metric.title} expected {needed}{against}."
    value = f"{metric.shown(best.expected)} validation {metric.title}"
    if not metric.is_accuracy:
        value = f"Validation {metric.title} {metric.shown(best.expected)}"
    after = counted(report.goal["epochs"], "epoch")
    if report.ends_early(best):
        after = f"about {best.epochs:.2g} of {after}, where its training ends by itself"
    return (
        f"{value} expected after {after} (90 % interval "
        f"{metric.shown_interval(best.low, best.high)}), {duration(best.seconds)} of training{against}."
    )


def _against(report: Report, advice: Advice, default: Estimate) -> str:
    """What it is to batch size 32 at its own best rate: how fast, how good."""
    ours, metric = advice.recommended, report.metric
    if (goal := _to_target(report)) is not None:
        return goal.compared(ours.mean, default.mean, f"batch size {COMMON_BATCH_SIZE}")
    faster = f"{compared(ours.seconds, default.seconds)} as batch size {COMMON_BATCH_SIZE}"
    gap = metric.sign * (ours.mean - default.mean)
    if abs(gap) <= advice.tolerance:
        return f"{faster}, as {'accurate' if metric.is_accuracy else 'good'}"
    return f"{faster}, {metric.shown_amount(abs(gap))} {'better' if gap > 0 else 'worse'}"


def _sure(report: Report, advice: Advice) -> str:
    """How sure it is that nothing else is better by what matters; that it is not, where it is not, comes first."""
    likely = "With " if advice.sure else "What is best is not clear yet: with "
    likely += chance(advice.recommended.chance_within)
    amount = report.metric.shown_amount(advice.tolerance)
    if (goal := _to_target(report)) is not None:
        return f"{likely} no batch size {goal.is_less} by more than {goal.shown(advice.tolerance)}."
    why = {
        "runs": "which is what two runs of one configuration differ by",
        "range": "1 % of the range of the values seen",
        "asked": "the tolerance asked for",
    }[advice.tolerance_is]
    return f"{likely} no batch size is better by more than {amount}, {why}."


def _others(report: Report, advice: Advice) -> str:
    """That nothing is clearly better, what might be and takes longer, what is faster and loses."""
    ours, metric = advice.recommended, report.metric
    if (goal := _to_target(report)) is not None:
        return _cheaper(advice, goal)
    rows = [row for row in advice.by_batch_size if row is not ours and row.runs]
    slower = [row for row in rows if row.seconds > ours.seconds / FASTER and row.chance_better > UNLIKELY]
    faster = [row for row in rows if row.seconds < FASTER * ours.seconds]
    said = []
    if slower:
        row = max(slower, key=lambda row: (metric.score(row.mean) > metric.score(ours.mean), row.chance_better))
        gain = metric.score(row.mean) - metric.score(ours.mean)
        might = f"might gain {metric.shown_amount(gain)}" if gain > 0 else "might be better"
        said.append(f"{row.batch_size} {might} ({chance(row.chance_better)}) and {compared(row.seconds, ours.seconds)}")
    if faster:
        row = max(faster, key=lambda row: row.chance_within)
        loss = metric.score(ours.mean) - metric.score(row.mean)
        loses = "loses" if row.chance_better < UNLIKELY else "likely loses" if row.chance_better < 0.45 else "may lose"
        lost = f"{loses} {metric.shown_amount(loss)}" if loss > 0 else "is expected to be as good"
        said.append(f"{row.batch_size} is {compared(row.seconds, ours.seconds)} and {lost}")
    clearly = "Nothing tried is clearly better. " if advice.sure else ""
    return f"{clearly}{'; '.join(said)}." if said else clearly


def _cheaper(advice: Advice, goal: ToTargetKind) -> str:
    ours = advice.recommended
    rows = [row for row in advice.by_batch_size if row is not ours and row.chance_better > UNLIKELY]
    if not rows:
        return f"Nothing tried is likely to {goal.to_be_less}."
    row = max(rows, key=lambda row: row.chance_better)
    return f"{row.batch_size} might {goal.to_be_less} ({chance(row.chance_better)}): {goal.shown(row.mean)} expected."


def _drawn(report: Report, best: Recommendation) -> list[str]:
    """What one more run draws, where the device tells, and that is not what the goal has said already."""
    if best.joules is None or best.quantity == "joules_to_target":
        return []
    rows = {row.batch_size: row.joules for row in report.by_batch_size}
    default = rows.get(COMMON_BATCH_SIZE)
    beside = ""
    if default is not None and best.batch_size != COMMON_BATCH_SIZE:
        beside = f", {less_or_more(best.joules, default, 'energy', f'batch size {COMMON_BATCH_SIZE}')}"
    return [f"Its training is expected to draw {shown_energy(best.joules)}{beside}."]


def _to_target(report: Report) -> ToTargetKind | None:
    """The goal, where it is one to a target."""
    return targeted(Goal(**report.goal), report.metric)


def _not_reached(report: Report, answer: TargetAnswer) -> str:
    metric, nearest = report.metric, answer.nearest
    if answer.reached:
        where = printable(str(report.machine.get("device") or "this machine"))
        return f"{report.target} was reached, but what that costs on {where} is not known: nothing to recommend there."
    if nearest is None:
        return f"No trial has been trained for an epoch yet, so nothing is known of {report.target}."
    within = f"{report.target} validation {metric.title} within {counted(report.goal['epochs'], 'epoch')}"
    said = (
        f"No trial reached {within}: nothing to recommend. The nearest came to {metric.shown(nearest.value)}: batch "
        f"size {nearest.batch_size} with learning rate {nearest.learning_rate:.2g}, after "
        f"{counted(nearest.epochs, 'epoch')}"
    )
    return said + (
        f"; {metric.title} was still improving, more epochs may reach it."
        if nearest.rising
        else f"; {metric.title} had plateaued."
    )


def verdict(report: Report, row: Estimate) -> str:
    """What a batch size is beside the recommended one, in a word or two."""
    advice = report.advised
    if advice is None:
        return ""
    if row is advice.recommended:
        return "recommended"
    if row.batch_size in advice.as_good:
        return "as good"
    if row.chance_within >= EVEN:
        return "may be as good"
    if row.chance_better > EVEN:
        return "may be better"
    return "likely worse" if row.chance_within >= UNLIKELY else "worse"
