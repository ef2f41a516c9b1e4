"""A study opened for writing: found where it asks the same question, made where there is none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from optuna.study import Study

from batchopt.errors import StorageError
from batchopt.events import Listener, Noted
from batchopt.goals.kinds import kind_of
from batchopt.question.goal import Goal
from batchopt.question.options import Options
from batchopt.question.space import SearchSpace
from batchopt.store.address import shown_storage, storage_url
from batchopt.store.database import open_database
from batchopt.store.ledger import Ledger
from batchopt.store.making import found_or_made, stamp_if_unmade
from batchopt.store.stamp import Stamp, check_program, check_question, check_seed
from batchopt.store.transactions import PATIENCE_S, Transactions


def opened_ledger(
    name: str,
    storage: str,
    stamp: Stamp,
    options: Options,
    *,
    listener: Listener,
    check: Callable[[], None],
    held: ExitStack,
) -> tuple[Ledger, Stamp]:
    """A study open for writing until `held` ends, and its question; made where it is new, which one process does.

    Args:
        name: of the study in its database.
        storage: a path, or an SQLAlchemy URL.
        stamp: what is asked.
        options: whose lease and checkpoints count.
        listener: told what its user should know of the database.
        check: called while the database is waited for; what it raises ends the waiting.
        held: closes the database.

    Raises:
        StudyMismatch: the study is there, and asks something else.
        StorageError: its database cannot be used, or it was not made by batchopt.
    """
    where, url = shown_storage(storage), storage_url(storage)
    transactions = Transactions(url, say=lambda line: listener(Noted(line)), check=check, patience=PATIENCE_S)
    database = transactions.again(lambda: open_database(storage, create=True))
    held.callback(database.db.dispose)
    if database.warning:
        listener(Noted(database.warning, warning=True))
    study = transactions.again(lambda: found_or_made(database, name, kind_of(stamp.goal, stamp.metric).directions))
    ledger = Ledger(
        database,
        study,
        lease_seconds=options.lease,
        transactions=transactions,
        checkpoint_limit=options.checkpoint_limit,
        checkpoints=options.checkpoints,
    )
    stamp_if_unmade(ledger, stamp)
    # Another process may have made it since it was looked for, and for another question.
    made = transactions.again(lambda: checked_stamp(study, where, lambda _: stamp.space, stamp.goal, options.seed))
    check_program(name, where, made, stamp.program)
    return ledger, made


def checked_stamp(
    study: Study, where: str, space_for: Callable[[int], SearchSpace], goal: Goal, seed: int | None
) -> Stamp:
    """The stamp of a study that is there.

    Args:
        study: in its database.
        where: that is, for people.
        space_for: number of training examples -> the space that is asked for.
        goal, seed: what is asked for; any seed where None.

    Raises:
        StorageError: it was not made by batchopt.
        StudyMismatch: it asks another question.
    """
    stamp = Stamp.read(study)
    if stamp is None:
        raise StorageError(f"study {study.study_name!r} in {where} was not made by batchopt. Use --study another-name.")
    check_question(study.study_name, where, stamp, space_for(stamp.program.train_examples), goal)
    check_seed(study.study_name, where, stamp, seed)
    return stamp
