"""What a report says in sentences beside its advice: what the data cannot tell, the laws, the machine, the facts."""

from __future__ import annotations

from batchopt.goals.kinds import kind_of
from batchopt.question.goal import Goal
from batchopt.question.metric import Target
from batchopt.question.space import SearchSpace, shown_space
from batchopt.report.answer.recommendation import Report
from batchopt.report.show.law_view import (
    energy_sentences,
    fastest_sentences,
    memory_sentences,
    noise_sentences,
    step_time_sentences,
    steps_sentences,
)
from batchopt.text import printable
from batchopt.words import counted, duration, listed

PACKAGES = ("batchopt", "tensorflow", "keras", "optuna")
"""Whose versions are told, where they are known."""


def fact_lines(report: Report) -> list[str]:
    """What was asked, of which data, when, and on what; so that a report that is handed on speaks for itself."""
    return [*_question_lines(report), *_machine_facts(report), _study_line(report)]


def _question_lines(report: Report) -> list[str]:
    if not report.question:
        return []
    goal, space = kind_of(Goal(**report.goal), report.metric).words(), report.question["space"]
    training, validation = report.question["train_examples"], report.question["validation_examples"]
    # A job's own are its own business.
    examples = f"{training:,} training examples"
    if validation:
        examples = f"{training:,} training and {validation:,} validation examples"
    return [f"question: {goal}; {shown_space(SearchSpace.from_description(space))}; {examples}"]


def _machine_facts(report: Report) -> list[str]:
    device = report.machine.get("device")
    if not device:
        return []
    cores = report.machine.get("cores")
    told = [f"{name} {printable(report.versions[name])}" for name in PACKAGES if name in report.versions]
    parts = [printable(str(device)), *([counted(cores, "core")] if isinstance(cores, int) and cores else []), *told]
    return [f"machine: {', '.join(parts)}"]


def _study_line(report: Report) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in sorted(report.trials.items())) or "none"
    days = list(dict.fromkeys(date[:10] for date in report.dates))
    when = f"; {' to '.join(days)}" if days else ""
    return f"study {printable(report.study)} in {report.storage}{when}; trials: {counts}"


def machine_lines(report: Report) -> list[str]:
    """What is best on each machine of a study, the one that the report is for marked."""
    lines = []
    if report.elsewhere and report.machine.get("cores"):
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
        cost = "" if machine.seconds is None else f", {duration(machine.seconds)} of training"
        fits = "" if machine.max_batch_size is None else f"; holds batch sizes up to {machine.max_batch_size}"
        better = "" if machine.best in (None, machine.batch_size) else f"; expected best: {machine.best}"
        lines.append(f"{here} on {machine.name} ({printable(machine.fingerprint)}): {best}{cost}{better}{fits}")
    return lines


def doubts(report: Report) -> list[str]:
    """What the data cannot tell, and what would."""
    advice = report.advised
    if report.at_target is not None or advice is None or not advice.undecided:
        return []
    tried = {row.batch_size for row in report.by_batch_size}
    undecided = [row for row in advice.undecided if row.batch_size in tried]
    if not undecided:
        return []
    sizes = listed([str(row.batch_size) for row in undecided])
    spread = f"run-to-run standard deviation {report.metric.shown_amount(advice.run_sd)}"
    said = [f"Not distinguishable from {sizes} with these data ({spread})."]
    tellable = [row for row in undecided if row.runs is not None]
    # Where the advice is not sure, what would make it so was said with it.
    if not advice.sure:
        return said
    if not tellable:
        said.append("They differ by so little that no reasonable number of runs would separate them.")
    else:
        row = max(tellable, key=lambda row: row.chance)
        assert row.runs is not None and row.seconds is not None
        said.append(
            f"About {counted(row.runs, 'more run')} each of it and of {row.batch_size} would tell the two apart in 8 "
            f"of 10 cases: {duration(row.seconds)} of training."
        )
    return said


def target_sentences(report: Report) -> list[str]:
    """How soon the target was reached, what the steps to it follow, and how noisy gradients are beside that."""
    law = report.to_target.law if report.to_target is not None else None
    noise = noise_sentences(report.gradient_noise, None if law is None else law.critical_batch_size)
    return [*_soonest(report), *noise]


def _soonest(report: Report) -> list[str]:
    found = report.to_target
    if found is None or (report.at_target is not None and report.advice is None):
        return []
    metric = report.metric
    target = str(Target(metric, found.target))
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
    return [*memory_sentences(report), *step_time_sentences(report), *energy_sentences(report)]
