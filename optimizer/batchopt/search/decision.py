"""Which step is taken next, and whether the study ends: named rules, the first that has an answer decides.

The last rule is the search itself: the step that promises the most for its seconds. While some new configuration has a
fair chance to end clearly above the favourite among the paused trials, the favourite waits: a quarter of a trial may
save three quarters. All rules before it guard against a surrogate that is surer than it should be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from batchopt.search.outlook import Option, Outlook

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

DOUBT_BELOW = 0.001
"""Where no step promises more than this part of the spread of the values, early values are not asked any more."""

EXPLOIT_EVERY, EXPLOIT_FROM = 4, 8
"""Every so many new configurations, from so many trials on, is the one that is expected to end best."""

FAIR_CHANCE = 0.4
"""The favourite waits while a new configuration ends clearly above it with this probability."""

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
        choose: the step, given the outlook and the new configurations; None where the rule does not apply.
    """

    name: str
    against: str
    choose: Callable[[Outlook, Sequence[Option]], Option | None]


def _settle(outlook: Outlook, new: Sequence[Option]) -> Option | None:
    steps = [*outlook.paused, *new]
    return outlook.expected_best(steps) if outlook.complete and steps and _little_hope(outlook, new) else None


def _finish_first(outlook: Outlook, new: Sequence[Option]) -> Option | None:
    ending = any(t.state == "running" and t.until_epoch == outlook.max_epochs for t in outlook.trials)
    due = len(outlook.trials) >= FINISH_FROM or not new
    return _best(outlook.paused) if due and not outlook.complete and not ending else None


def _finish_odd(outlook: Outlook, new: Sequence[Option]) -> Option | None:
    # By those started: of those finished some were by other rules, and its turn would be passed over.
    odd = len(outlook.trials) // FINISH_ONE_IN % ODD_ONE_IN == ODD_ONE_IN - 1
    return outlook.farthest(outlook.paused, outlook.complete) if odd and _finish_due(outlook) else None


def _finish_some(outlook: Outlook, new: Sequence[Option]) -> Option | None:
    return _best(outlook.paused) if _finish_due(outlook) else None


def _doubt(outlook: Outlook, new: Sequence[Option]) -> Option | None:
    steps = [*outlook.paused, *new]
    least = DOUBT_BELOW * outlook.spread
    if not outlook.complete or not steps or max(step.gain for step in steps) >= least:
        return None
    return outlook.best_by_finals(steps)


def _explore(outlook: Outlook, new: Sequence[Option]) -> Option | None:
    due = len(outlook.trials) % EXPLORE_EVERY == EXPLORE_EVERY - 1
    hopeful = sorted(new, key=lambda option: -option.hope)[: max(len(new) // EXPLORE_AMONG, 1)]
    return outlook.farthest(hopeful, outlook.trials) if due and _starts(outlook, new) else None


def _exploit(outlook: Outlook, new: Sequence[Option]) -> Option | None:
    started = len(outlook.trials)
    due = started >= EXPLOIT_FROM and started % EXPLOIT_EVERY == EXPLOIT_EVERY // 2
    return outlook.expected_best(new) if due and _starts(outlook, new) else None


def _promising(outlook: Outlook, new: Sequence[Option]) -> Option | None:
    fair = any(option.chance > FAIR_CHANCE for option in new)
    return _best(new if fair else [*outlook.paused, *new])


RULES = (
    Rule("to tell the best from the lucky", "an end while a lucky run leads", _settle),
    Rule("the first to its end", "a search that has never seen how a curve ends", _finish_first),
    Rule("by final values alone", "early values that say of everything that nothing is to be gained", _doubt),
    Rule("the oddest to its end", "late bloomers far from all that was finished", _finish_odd),
    Rule("one in a few to its end", "early values that are believed too much", _finish_some),
    Rule("where nothing was tried", "a region that the surrogate has written off", _explore),
    Rule("expected best", "noise, which makes a neighbour of the best look worthless", _exploit),
    Rule("promises most", "nothing: it is the search itself", _promising),
)


def pick(outlook: Outlook, new: Sequence[Option]) -> tuple[Option, Rule] | None:
    """The step to take and the rule that chose it, given the new configurations; None where there is no step left."""
    chosen = ((rule.choose(outlook, new), rule) for rule in RULES)
    return next(((option, rule) for option, rule in chosen if option is not None), None)


def enough(
    outlook: Outlook,
    new: Sequence[Option],
    *,
    may_start: bool,
    until: bool,
    worth: float | None = None,
    shown: Callable[[float], str],
) -> str:
    """Why the study ends here, in one line; empty where it goes on.

    Args:
        outlook: what the evidence says.
        new: the new configurations.
        may_start: whether there is a trial left to start.
        until: whether the study ends by itself.
        worth: what a second must be expected to gain, in the units of the values; None where the user did not say.
        shown: what is improved, given by how much it would matter.
    """
    if not outlook.complete and outlook.paused:
        return ""
    promising = max((paused.hope for paused in outlook.paused), default=0.0)
    if not new and promising <= NO_CHANCE:
        return "every configuration of the space was tried" if may_start else "the trials of this study are used up"
    steps = [*outlook.paused, *new]
    if worth is not None and outlook.complete:
        best = max(steps, key=lambda step: step.gain / step.seconds)
        if len(outlook.complete) >= WORTH_AFTER_COMPLETE and best.gain / best.seconds < worth:
            return f"going on is expected to gain {best.gain:.2g} in the next {best.seconds:.3g} s, less than it must"
    if not until or not steps or len(outlook.complete) < STOP_AFTER_COMPLETE:
        return ""
    since = sum(trial.trial > outlook.observed_best().trial for trial in outlook.trials)
    if since < WITHOUT_GAIN or not _little_hope(outlook, new) or not settled(outlook):
        return ""
    return f"no step is likelier than {NO_CHANCE:.0%} to improve {shown(outlook.matters)}"


def settled(outlook: Outlook) -> bool:
    """Whether enough runs beside the best one have told that it is."""
    worth = outlook.expected(outlook.complete)
    beside = int((worth > worth.max() - outlook.clearly).sum())
    lucky = outlook.observed_best() is not outlook.complete[int(worth.argmax())]
    return beside >= (SETTLED_AT_MOST if lucky else SETTLED)


def _little_hope(outlook: Outlook, new: Sequence[Option]) -> bool:
    """Whether nothing better is in sight any more."""
    hopes = [step.hope for step in (*outlook.paused, *new)]
    return len(outlook.trials) >= STOP_AFTER_TRIALS and max(hopes) <= NO_CHANCE


def _finish_due(outlook: Outlook) -> bool:
    """Whether too few of the trials were trained to their end, or are on the way there."""
    ending = sum(t.state == "running" and t.until_epoch > outlook.first_rung for t in outlook.trials)
    due = len(outlook.trials) >= FINISH_ONE_IN * (len(outlook.complete) + ending + 1)
    return due and bool(outlook.paused)


def _starts(outlook: Outlook, new: Sequence[Option]) -> bool:
    """Whether the search itself would start a new configuration."""
    best = _promising(outlook, new)
    return best is not None and best.trial is None


def _best(options: Sequence[Option]) -> Option | None:
    return max(options, key=lambda option: option.worth, default=None)
