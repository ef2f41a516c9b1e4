"""Every error that a user can cause or meet, each one clear line: what, where, what to do."""

from __future__ import annotations


class BatchoptError(Exception):
    """Base of all errors that are reported as one line, without a traceback."""


class InvalidInput(BatchoptError, ValueError):
    """An option or argument that cannot be used."""


class DataError(BatchoptError):
    """A data set that is missing, corrupt, or of another layout."""


class StorageError(BatchoptError):
    """A study database that cannot be opened, read or written."""


class StorageFailed(StorageError):
    """A study database that was in use and cannot be written any more: its disk is full, its server stays away."""


class StorageBusy(StorageError):
    """A study database that another program has locked for now."""


class StorageNotFound(StorageError):
    """There is no such database, or no study in it yet."""


class DamagedDatabase(StorageError):
    """A database in which a row is not what any program writes."""


class SchemaMismatch(StorageError):
    """A database whose tables are of another version than this program's."""


class StudyNotFound(StorageNotFound):
    """The database is there, the study in it is not."""


class StudyMismatch(BatchoptError):
    """A study that exists already, with another space, goal or program."""


class DeviceError(BatchoptError):
    """A device that was asked for and is not there, or cannot be used."""


class ModelError(BatchoptError):
    """A `build_model` whose result cannot be trained as a study needs it."""


class WorkerDied(BatchoptError):
    """The training process ended without an answer, several times in a row."""


class TrainingFailed(BatchoptError):
    """Training raised where no code of the user's was running: in Keras or TensorFlow, or a fault of our own."""


class TaskFailed(BatchoptError):
    """The user's own code failed; the text is its traceback, or a command's last lines."""
