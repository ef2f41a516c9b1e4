"""Which step is taken next, and whether the study ends: named rules, the first that has an answer decides.

The last rule is the search itself: the step that promises the most for its seconds. All rules before it guard against a
surrogate that is surer than it should be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from batchopt.search.choices import Candidate, Choices

FINISH_ONE_IN = 4
"""One trial in so many is trained to its end whatever it promises."""

FINISH_FROM = 1
"""The first is trained to its end once so many were started. With 3, the best of three first rungs, real curves take 5
full trials in the median and not 6.6, but fewer studies get there (95.8 and not 97.9 %), and where the first trial is
good, as on MNIST, the other two are lost (1.37 full trials and not 0.66): to be sure comes first."""

ODD_ONE_IN = 4
"""One of so many of these is the one farthest from all that were finished before."""

EXPLORE_EVERY = 8
"""Every so many new configurations is the one farthest from all that were tried."""

EXPLORE_AMONG = 4
"""And is chosen from so small a part of them, the most hopeful ones."""

EXPLOIT_EVERY, EXPLOIT_FROM = 4, 8
"""Every so many new configurations, from so many trials on, is the one that is expected to end best."""

STOP_AFTER_TRIALS, STOP_AFTER_COMPLETE, WITHOUT_GAIN = 30, 8, 15
"""A study does not end by itself before so many trials were started, so many trained to the end, and so many started
after the best one."""

NO_CHANCE = 0.01
"""It ends when no step is likelier than this to end above the best by anything that matters. With no trial left to
start, a paused one is finished unless as much is to be said of it."""

WORTH_AFTER_COMPLETE = 4
"""What a step gains is not known before so many trials were trained to their end."""

SETTLED, SETTLED_AT_MOST = 5, 20
"""Nor before so many complete trials are expected close to the best; the second, where the best observed is not the one
that is expected best: with noise a lucky run may lead, and only runs beside the best one tell."""


@dataclass(frozen=True)
class Rule:
    """One way to choose a step.

    Attributes:
        name: for the screen, after "new" or "continues".
        against: what goes wrong without it.
        choose: the step, given the choices and the new configurations; None where the rule does not apply.
    """

    name: str
    against: str
    choose: Callable[[Choices, Sequence[Candidate]], Candidate | None]


def _settle(choices: Choices, new: Sequence[Candidate]) -> Candidate | None:
    steps = [*choices.paused, *new]
    return choices.expected_best(steps) if choices.complete and steps and _little_hope(choices, new) else None


def _finish_first(choices: Choices, new: Sequence[Candidate]) -> Candidate | None:
    ending = any(t.state == "running" and t.until_epoch == choices.max_epochs for t in choices.trials)
    due = len(choices.trials) >= FINISH_FROM or not new
    return _best(choices.paused) if due and not choices.complete and not ending else None


def _finish_odd(choices: Choices, new: Sequence[Candidate]) -> Candidate | None:
    # By those started: of those finished some were by other rules, and its turn would be passed over.
    odd = len(choices.trials) // FINISH_ONE_IN % ODD_ONE_IN == ODD_ONE_IN - 1
    return choices.farthest(choices.paused, choices.complete) if odd and _finish_due(choices) else None


def _finish_some(choices: Choices, new: Sequence[Candidate]) -> Candidate | None:
    return _best(choices.paused) if _finish_due(choices) else None


def _explore(choices: Choices, new: Sequence[Candidate]) -> Candidate | None:
    due = len(choices.trials) % EXPLORE_EVERY == EXPLORE_EVERY - 1
    hopeful = sorted(new, key=lambda option: -option.hope)[: max(len(new) // EXPLORE_AMONG, 1)]
    return choices.farthest(hopeful, choices.trials) if due and _starts(choices, new) else None


def _exploit(choices: Choices, new: Sequence[Candidate]) -> Candidate | None:
    started = len(choices.trials)
    due = started >= EXPLOIT_FROM and started % EXPLOIT_EVERY == EXPLOIT_EVERY // 2
    return choices.expected_best(new) if due and _starts(choices, new) else None


def _promising(choices: Choices, new: Sequence[Candidate]) -> Candidate | None:
    return _best([*choices.paused, *new])


RULES = (
    Rule("to tell the best from the lucky", "an end while a lucky run leads", _settle),
    Rule("the first to its end", "a search that has never seen how a curve ends", _finish_first),
    Rule("the oddest to its end", "late bloomers far from all that was finished", _finish_odd),
    Rule("one in a few to its end", "early values that are believed too much", _finish_some),
    Rule("where nothing was tried", "a region that the surrogate has written off", _explore),
    Rule("expected best", "noise, which makes a neighbour of the best look worthless", _exploit),
    Rule("promises most", "nothing: it is the search itself", _promising),
)


def pick(choices: Choices, new: Sequence[Candidate]) -> tuple[Candidate, Rule] | None:
    """The step to take and the rule that chose it, given the new configurations; None where there is no step left."""
    chosen = ((rule.choose(choices, new), rule) for rule in RULES)
    return next(((option, rule) for option, rule in chosen if option is not None), None)


def enough(
    choices: Choices,
    new: Sequence[Candidate],
    *,
    may_start: bool,
    until: bool,
    worth: float | None = None,
    shown: Callable[[float], str],
) -> str:
    """Why the study ends here, in one line; empty where it goes on.

    Args:
        choices: what the evidence says.
        new: the new configurations.
        may_start: whether there is a trial left to start.
        until: whether the study ends by itself.
        worth: what a second must be expected to gain, in the units of the values; None where the user did not say.
        shown: what is improved, given by how much it would matter.
    """
    if not choices.complete and choices.paused:
        return ""
    promising = max((paused.hope for paused in choices.paused), default=0.0)
    if not new and promising <= NO_CHANCE:
        return "every configuration of the space was tried" if may_start else "the trials of this study are used up"
    steps = [*choices.paused, *new]
    if worth is not None and choices.complete:
        best = max(steps, key=lambda step: step.gain / step.seconds)
        if len(choices.complete) >= WORTH_AFTER_COMPLETE and best.gain / best.seconds < worth:
            return f"going on is expected to gain {best.gain:.2g} in the next {best.seconds:.3g} s, less than it must"
    if not until or not steps or len(choices.complete) < STOP_AFTER_COMPLETE:
        return ""
    since = sum(trial.trial > choices.observed_best().trial for trial in choices.trials)
    if since < WITHOUT_GAIN or not _little_hope(choices, new) or not settled(choices):
        return ""
    return f"no step is likelier than {NO_CHANCE:.0%} to improve {shown(choices.matters)}"


def settled(choices: Choices) -> bool:
    """Whether enough runs beside the best one have told that it is."""
    worth = choices.expected(choices.contenders)
    beside = int((worth > worth.max() - choices.clearly).sum())
    lucky = choices.observed_best() is not choices.contenders[int(worth.argmax())]
    return beside >= (SETTLED_AT_MOST if lucky else SETTLED)


def _little_hope(choices: Choices, new: Sequence[Candidate]) -> bool:
    """Whether nothing better is in sight any more."""
    hopes = [step.hope for step in (*choices.paused, *new)]
    return len(choices.trials) >= STOP_AFTER_TRIALS and max(hopes) <= NO_CHANCE


def _finish_due(choices: Choices) -> bool:
    """Whether too few of the trials were trained to their end, or are on the way there."""
    ending = sum(t.state == "running" and t.until_epoch > choices.first_rung for t in choices.trials)
    due = len(choices.trials) >= FINISH_ONE_IN * (len(choices.complete) + ending + 1)
    return due and bool(choices.paused)


def _starts(choices: Choices, new: Sequence[Candidate]) -> bool:
    """Whether the search itself would start a new configuration."""
    best = _promising(choices, new)
    return best is not None and best.trial is None


def _best(options: Sequence[Candidate]) -> Candidate | None:
    return max(options, key=lambda option: option.worth, default=None)
