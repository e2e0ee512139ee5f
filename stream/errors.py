"""The error tree: every failure an operator may meet, said in one line.

    SurgecastError
    ├── UsageError               a wrong file, column, option or setting
    ├── ServiceUnavailable       a broker or store that does not answer (retriable)
    ├── EmbeddedServiceFailed    an embedded service that did not start or died
    ├── FencedOut                this worker lost the partition it wanted to write
    ├── LostRecords              records of a partition were skipped on the way to the state
    ├── ChampionRefused          a model that a worker must not serve
    ├── IncompatibleState        what lies in the store belongs to another build or cluster
    └── UnreadableEvent          a record that is refused; carries the dead-letter reason

The command line prints ``str(error)`` on stderr and exits with 1, never with a traceback for these.
"""


class SurgecastError(Exception):
    """Root of all errors with an explanation. Operator: read the one line it prints."""

    retriable = False


class UsageError(SurgecastError, ValueError):
    """The user's file, option or setting cannot be used. Operator: correct what the text names."""


class ServiceUnavailable(SurgecastError, ConnectionError):
    """No answer from broker or store. Operator: start it or correct its address; workers retry."""

    retriable = True


class EmbeddedServiceFailed(SurgecastError, RuntimeError):
    """An embedded service did not start or died. Operator: the text shows the tail of its log."""


class FencedOut(SurgecastError, RuntimeError):
    """Another worker owns the partition now. Operator: nothing to do; this worker drops it."""


class LostRecords(SurgecastError, RuntimeError):
    """Records were not delivered. Operator: start the worker again; it resumes where it can."""


class IncompatibleState(SurgecastError, RuntimeError):
    """Stored state belongs to other features, another topic or cluster. Operator: see the text."""


class ChampionRefused(SurgecastError, ValueError):
    """A champion unfit to serve here. Operator: `surgecast models rollback`, or train anew."""


class UnreadableEvent(SurgecastError, ValueError):
    """A record that is refused. `reason` is the dead-letter reason, `detail` says where and why."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
