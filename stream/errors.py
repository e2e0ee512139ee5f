"""The error tree: every failure that an operator may see.

    SurgecastError
    ├── UsageError               a wrong file, column, option or setting
    ├── ServiceUnavailable       a broker or store that does not answer; workers retry
    ├── EmbeddedServiceFailed    an embedded service that did not start or died
    ├── FencedOut                another worker took over the partition before this one wrote it
    ├── LostRecords              records of a partition were skipped between Kafka and the state
    ├── ChampionRefused          a model that this worker must not serve
    ├── IncompatibleState        stored state of another build, topic or cluster
    └── UnreadableEvent          a refused record, with its dead-letter reason

The command line prints ``str(error)``, one line, on stderr and exits with 1, without a traceback.
"""


class SurgecastError(Exception):
    """Root of all errors with a known cause. Operator: read the one line it prints."""


class UsageError(SurgecastError, ValueError):
    """A file, option or setting cannot be used. Operator: correct the value that the text names."""


class ServiceUnavailable(SurgecastError, ConnectionError):
    """Broker or store does not answer. Operator: start it or correct its address; workers retry."""


class EmbeddedServiceFailed(SurgecastError, RuntimeError):
    """An embedded service did not start or died. Operator: the text shows the tail of its log."""


class FencedOut(SurgecastError, RuntimeError):
    """Another worker owns the partition. Operator: nothing to do; this worker drops it."""


class LostRecords(SurgecastError, RuntimeError):
    """Records were not delivered. Operator: restart the worker; it resumes where it can."""


class IncompatibleState(SurgecastError, RuntimeError):
    """Stored state has other features, or another topic or cluster. Operator: see the text."""


class ChampionRefused(SurgecastError, ValueError):
    """The champion cannot serve here. Operator: `surgecast models rollback`, or train again."""


class UnreadableEvent(SurgecastError, ValueError):
    """A refused record. `reason` is the dead-letter reason, `detail` names the field and value."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
