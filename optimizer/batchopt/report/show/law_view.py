"""The laws of a study in sentences: what a step costs, how many it takes, where their product is least, what fits."""

from __future__ import annotations

from batchopt.machine.energy import WHAT_IS_COUNTED
from batchopt.machine.memory import shown_bytes
from batchopt.report.answer.noise import GradientNoise
from batchopt.report.answer.recommendation import Report
from batchopt.report.answer.targets import ToTarget
from batchopt.search.laws import StepsLaw
from batchopt.text import printable
from batchopt.words import counted, listed

UNSEEN = 0.05
"""Of what a step costs whatever its size: what the examples of the largest batch cost beside it is not seen."""


def memory_sentences(report: Report) -> list[str]:
    """The largest batch size that fits, where it is known."""
    largest = report.max_batch_size
    if largest is None:
        return []
    memory = "" if report.memory_bytes is None else f" of {shown_bytes(report.memory_bytes)}"
    every = ", the largest of this study" if largest == report.largest_of_space else ""
    more = "; larger ones are trained in micro-batches" if report.accumulate and not every else ""
    return [f"The largest batch size known to fit in memory{memory} is {largest}{every}{more}."]


def energy_sentences(report: Report) -> list[str]:
    """What was counted as energy, or why there is none."""
    if any(row.joules is not None for row in report.by_batch_size):
        counted_is = WHAT_IS_COUNTED.get(report.machine.get("energy", ""), "as those who trained have told it")
        return [f"Energy: {counted_is}."]
    why = report.machine.get("no_energy", "")
    return [f"Energy was not measured: {printable(why)}."] if why else []


def step_time_sentences(report: Report) -> list[str]:
    """What a step costs by batch size."""
    law = report.step_time
    if law is None:
        return []
    if law.followed and law.per_example_s * law.largest < UNSEEN * law.overhead_s:
        return [
            f"A step takes about {_us(law.overhead_s)} µs ({_us(law.overhead_low)} to {_us(law.overhead_high)}) at "
            f"every timed batch size, within {law.worst:.0%}: larger batches cost no more."
        ]
    said = (
        f"Step time = {_us(law.overhead_s)} µs ({_us(law.overhead_low)} to {_us(law.overhead_high)}) + "
        f"{_us(law.per_example_s)} µs ({_us(law.per_example_low)} to {_us(law.per_example_high)}) per example"
    )
    if law.followed:
        return [f"{said}; the fit is within {law.worst:.0%} at every timed batch size."]
    return ["Step times here are not affine in the batch size, so no law of them is given."]


def steps_sentences(found: ToTarget) -> list[str]:
    """How the steps to a target depend on the batch size."""
    early = [str(row.batch_size) for row in found.reached if row.within_first]
    said = [f"Reached within the first epoch, too early for a fit: {listed(early)}."] if early else []
    law = found.law
    if law is None:
        return [*said, "Too few batch sizes reached the target (or steps do not level off) to fit steps-to-target."]
    if not law.followed:
        return [*said, f"Steps to the target do not follow the law of steps: one batch size is off by {law.worst:.0%}."]
    return [
        *said,
        f"Steps to target = {law.min_steps:.3g} (1 + B / batch size), within {law.worst:.0%}. "
        f"The critical batch size B is {critical(law)}.",
    ]


def critical(law: StepsLaw) -> str:
    """The critical batch size with its interval; outside of what was measured, only on which side."""
    if law.critical_batch_size > law.largest:
        return f"above {law.largest:.0f}, the largest that reached the target"
    if law.critical_batch_size < law.smallest:
        return f"below {law.smallest:.0f}, the smallest that reached the target"
    fitted = _examples(law.critical_batch_size)
    low = f"below {law.smallest:.0f}" if law.low < law.smallest else _examples(law.low)
    high = law.high
    if high is None:
        return f"{fitted} (leave-one-out range: {low} and above)"
    above = f"above {law.largest:.0f}" if high > law.largest else _examples(high)
    return f"{fitted} (leave-one-out range: {low} to {above})"


def fastest_sentences(report: Report) -> list[str]:
    """Where steps to the target times seconds per step are least."""
    least, found, step_time = report.fastest_by_laws, report.to_target, report.step_time
    if least is None or found is None or found.law is None or step_time is None:
        return []
    smallest, largest = found.law.smallest, found.law.largest
    where = f"about {_examples(least)}"
    if least > largest:
        where = f"above {largest:.0f}"
    elif least < smallest:
        where = f"below {smallest:.0f}"
    return [f"Combining both fits, time to target is shortest at batch size {where}."]


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:.3g}"


def _examples(size: float) -> str:
    """A batch size that no ladder has, to two digits and without an exponent."""
    return f"{float(f'{size:.2g}'):,.0f}" if size >= 10 else f"{size:.2g}"


def noise_sentences(noise: GradientNoise | None, critical_batch_size: float | None) -> list[str]:
    """The noise scale beside the fitted critical batch size, and by how much they differ."""
    if noise is None:
        return []
    whole = noise.whole
    if whole.scale is None:
        return ["Gradient noise scale could not be estimated (no signal above the noise)."]
    interval = "" if whole.low is None else f" (90 % interval over trials {whole.low:,.0f} to {whole.high:,.0f})"
    said = f"The gradient noise scale, measured in {counted(whole.trials, 'trial')}, is {whole.scale:,.0f}{interval}"
    known = [row for row in noise.by_epoch if row.scale is not None]
    if len(known) > 1:
        ends = [f"{row.scale:,.0f} after epoch {row.epoch}" for row in (known[0], known[-1])]
        said += f", {' and '.join(ends)}"
    if critical_batch_size is None:
        return [f"{said}; no critical batch size was fitted to compare it with."]
    if critical_batch_size <= 0:
        return [f"{said}; the fitted critical batch size is 0."]
    return [f"{said}: {whole.scale / critical_batch_size:.2g} times the fitted critical batch size."]
