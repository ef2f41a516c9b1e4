"""What a report says in sentences: the advice, what else would do, what the data cannot tell, and the machine."""

from __future__ import annotations

from batchopt.question.metric import Metric
from batchopt.question.space import COMMON_BATCH_SIZE
from batchopt.report.answer.recommendation import Recommendation, Report
from batchopt.report.show.goal_view import time_alternatives, time_headline
from batchopt.report.show.law_view import (
    fastest_sentences,
    memory_sentences,
    noise_sentences,
    step_time_sentences,
    steps_sentences,
)
from batchopt.text import printable
from batchopt.words import compared, counted, duration, extra_words, listed


def machine_lines(report: Report) -> list[str]:
    """What is best on each machine of a study, the one that the report is for marked."""
    lines = []
    if report.elsewhere:
        lines.append(
            f"Times and memory are for {printable(report.machine['device'])}. To add this machine: "
            f"`batchopt probe SCRIPT --storage {report.storage} --study {printable(report.study)}`."
        )
    for machine in report.machines:
        here = "*" if machine.fingerprint == report.machine.get("fingerprint") else " "
        best = (
            f"{machine.batch_size} x {machine.learning_rate:.2g}"
            if machine.learning_rate is not None
            else "nothing yet"
        )
        cost = "" if machine.train_seconds is None else f", {duration(machine.train_seconds)} of training"
        fits = "" if machine.max_batch_size is None else f"; holds batch sizes up to {machine.max_batch_size}"
        faster = "" if machine.fastest in (None, machine.batch_size) else f"; as good and fastest: {machine.fastest}"
        lines.append(f"{here} best on {machine.name} ({printable(machine.fingerprint)}): {best}{cost}{faster}{fits}")
    return lines


def headline(report: Report) -> str:
    """The advice in one sentence."""
    if report.time is not None:
        return time_headline(report, report.time)
    best, metric = report.recommendation, report.metric
    if best is None:
        if report.trials.get("complete"):
            return (
                f"The trials of study {printable(report.study)} tell no batch size from another: nothing to recommend."
            )
        return f"Study {printable(report.study)} has no complete trial yet, so there is nothing to recommend."
    extra = extra_words(best.extra)
    return (
        f"Use batch size {best.batch_size} with learning rate {best.learning_rate:.2g}{extra}: "
        f"{_expected(best, metric)} expected after {counted(report.goal['epochs'], 'epoch')} "
        f"({metric.shown_interval(best.low, best.high)}), {duration(best.seconds)} of training."
    )


def alternatives(report: Report) -> list[str]:
    """What else would do: the fastest that is as good, and the common default."""
    advice, metric = report.advised, report.metric
    if advice is None:
        return []
    if report.time is not None:
        return time_alternatives(advice)
    best, fastest = advice.best, advice.fastest
    within = f"within {metric.shown_amount(advice.tolerance)}"
    said = [f"No faster batch size is as good {within}."]
    if fastest.batch_size != best.batch_size:
        said = [
            f"As good {within} and faster: {fastest.batch_size} with learning rate {fastest.learning_rate:.2g}, "
            f"{compared(fastest.seconds, best.seconds)}."
        ]
    default = advice.at(COMMON_BATCH_SIZE)
    if default is not None and default.batch_size != best.batch_size:
        said.append(
            f"Against the common {default.batch_size} at its own best rate, {default.learning_rate:.2g}: "
            f"{_gained(best.mean - default.mean, metric)}, {compared(best.seconds, default.seconds)}."
        )
    return said


def doubts(report: Report) -> list[str]:
    """What the data cannot tell, and what would."""
    advice = report.advised
    if report.time is not None or advice is None or not advice.undecided:
        return []
    sizes = listed([str(row.batch_size) for row in advice.undecided])
    spread = f"run-to-run standard deviation {report.metric.shown_amount(advice.run_sd)}"
    said = [f"Not distinguishable from {sizes} with these data ({spread})."]
    tellable = [row for row in advice.undecided if row.runs is not None]
    if not tellable:
        said.append("They differ by so little that no reasonable number of runs would separate them.")
    else:
        row = max(tellable, key=lambda row: row.chance)
        assert row.runs is not None and row.seconds is not None
        said.append(
            f"About {counted(row.runs, 'more run')} of it and of {row.batch_size} each would probably separate these "
            f"two: {duration(row.seconds)} of training."
        )
    return said


def target_sentences(report: Report) -> list[str]:
    """How soon the target was reached, what the steps to it follow, and how noisy gradients are beside that."""
    law = report.to_target.law if report.to_target is not None else None
    noise = noise_sentences(report.gradient_noise, None if law is None else law.critical_batch_size)
    return [*_soonest(report), *noise]


def _soonest(report: Report) -> list[str]:
    found = report.to_target
    if found is None or (report.time is not None and report.advice is None):
        return []
    metric = report.metric
    target = str(metric.target(found.target))
    if not found.reached:
        nearest = "" if found.nearest is None else f"; the nearest came to {metric.shown(found.nearest)}"
        return [f"No trial reached {target}{nearest}."]
    soonest = min(found.reached, key=lambda row: row.seconds)
    when = f"{duration(soonest.seconds)} of training, {soonest.epochs:.2g} epochs"
    if soonest.within_first:
        when = f"within the first epoch, at most {duration(soonest.seconds)} of training"
    said = [
        f"Fastest to reach {target}: batch size {soonest.batch_size} with learning rate "
        f"{soonest.learning_rate:.2g}, {when}."
    ]
    return [*said, *steps_sentences(found), *fastest_sentences(report)]


def machine_sentences(report: Report) -> list[str]:
    """What is known of the machine: what fits, what a step costs."""
    return [*memory_sentences(report), *step_time_sentences(report)]


def _expected(best: Recommendation, metric: Metric) -> str:
    """The value that is expected, and what it is."""
    if metric.is_accuracy:
        return f"{metric.shown(best.expected)} validation {metric.title}"
    return f"validation {metric.title} {metric.shown(best.expected)}"


def _gained(difference: float, metric: Metric) -> str:
    """A difference with its sign, and its unit where it has one."""
    return metric.shown_change(difference) + (" points" if metric.is_accuracy else "")
