"""The one family of errors: each message says what came, what is wrong and what to do."""


class LandscapeError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigurationError(LandscapeError, ValueError):
    """An argument, a configuration file or a combination of settings cannot be used."""


class DatasetError(LandscapeError):
    """A dataset is unknown, damaged, or cannot be fetched."""


class ModelError(LandscapeError, ValueError):
    """A model is unknown, cannot be built, or does not fit the parameters it is given."""


class SnapshotError(LandscapeError):
    """Base of all errors about stored runs and snapshots."""


class MissingSnapshotError(SnapshotError, FileNotFoundError):
    """There is no run, no sealed segment, or no snapshot at the position that was asked for."""


class CorruptSnapshotError(SnapshotError):
    """A stored file is damaged: it cannot be parsed, or its digests do not match its contents."""


class UnsafeFileError(SnapshotError):
    """A file uses HDF5 features that could reach outside of it; it is not opened further."""


class UnsupportedSchemaError(SnapshotError):
    """A file was written by a newer version of this package."""


class NotFiniteError(SnapshotError):
    """Stored weights contain NaN or infinity."""


class RunBusyError(SnapshotError):
    """Another process is writing to the run."""


class RunConflictError(SnapshotError):
    """A run directory already holds a run with other settings."""


class ObjectiveError(LandscapeError, ValueError):
    """An objective function cannot be used: wrong shape, train mode, non-deterministic, not finite."""


class LedgerError(LandscapeError):
    """The ledger of measurements cannot be used."""


class EngineError(LandscapeError):
    """Worker processes cannot be reached, or do not run the same program."""


class UnsupportedFormatError(SnapshotError):
    """A file to import is of no format that is read here, or holds no weights."""
