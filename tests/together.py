"""`python together.py KIND ROUNDS new|optuna`: in each round eight processes begin on one database in the same moment.

Each does what a study script does, apart from training: it looks for the study, asks what is known of its machine,
makes what is missing, and writes trials until there are enough. They are forked, so that a round takes a second and
all of them really begin together. Prints how many rounds went as they should.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import optuna
from batchopt import Dataset, Goal, Options, Study, Task
from batchopt.events import ignore
from batchopt.measured import DeviceMemory
from batchopt.store.doctor.doctor import examine
from batchopt.study.finding import find
from batchopt.study.opening import opened_ledger
from batchopt.training.messages import Ready
from batchopt.workers.starting import recorded_capacity
from servers import own_database
from written_study import MACHINE, PROGRAM, SPACE, STAMP, epoch

PROCESSES, TRIALS = 8, 8
READY = Ready(MACHINE, PROGRAM, 10, "fused", (), DeviceMemory(1 << 30, 1 << 20))


@contextmanager
def storages(kind: str) -> Iterator[str]:
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/studies.db"
    else:
        with own_database(kind) as url:
            yield url


def take_part(storage: str, together: object) -> None:
    task = Task(lambda rate: None, lambda path: Dataset(()))
    study = Study(task, SPACE, Goal(epochs=2), name="mnist", storage=storage)
    together.wait()  # type: ignore[attr-defined]
    find(study.name, study.storage, study._space_for, study.goal, None)
    recorded_capacity(READY, SPACE, Options(), storage)
    held = ExitStack()
    ledger, _ = opened_ledger("mnist", storage, STAMP, Options(), listener=ignore, check=lambda: None, held=held)
    ledger.add_machine(MACHINE, "fused")
    while True:
        with ledger.turn():
            if ledger.count_started() >= TRIALS:
                break
            number = ledger.study.ask(SPACE.distributions()).number
            assert ledger.begin(number)
        for at in (1, 2):
            ledger.add_epoch(number, MACHINE, epoch(at, 0.5), 0.0)
        ledger.complete(number, 0.5)
    held.close()


def good_round(storage: str, *, plain: bool) -> bool:
    if plain:
        database = optuna.storages.RDBStorage(storage)
        optuna.create_study(storage=database, study_name="plain").add_trial(optuna.create_trial(value=1.0))
        database.engine.dispose()
    forks = multiprocessing.get_context("fork")
    together = forks.Barrier(PROCESSES)
    processes = [forks.Process(target=take_part, args=(storage, together)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    ended = [process.exitcode for process in processes]
    found = examine(storage)
    count = TRIALS + (1 if plain else 0)
    good = ended == [0] * PROCESSES and (found.studies, found.trials, found.findings) == (1 + plain, count, [])
    if not good:
        print(ended, found, file=sys.stderr)
    return good


if __name__ == "__main__":
    good = 0
    for _ in range(int(sys.argv[2])):
        try:
            with storages(sys.argv[1]) as storage:
                good += good_round(storage, plain=sys.argv[3] == "optuna")
        except Exception:  # noqa: BLE001  the other rounds tell how often
            traceback.print_exc()
    print(good)
