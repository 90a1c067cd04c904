"""Every error that eddyline raises on purpose: what went wrong, and what to do about it.

The tree::

    EddylineError                exit 1
    ├── ConfigError              exit 3   a setting is missing, unknown or contradicts another
    ├── BrokerError              exit 4   anything about reaching Kafka
    │   ├── BrokerUnavailable             no broker answers at the address, or it stopped answering
    │   ├── BrokerStartError              the local broker cannot be started on this machine
    │   └── TopicError                    a topic is missing, or not shaped as the pipeline needs it
    ├── RegistryError            exit 4   the schema registry does not answer, or not as one does
    ├── StateError               exit 5   stored state is not of these topics, or cannot be read
    ├── ModelError               exit 6   a model folder or release is absent, corrupt or does not fit
    ├── ReplayError              exit 6   a replay has nothing to publish, or is not the one that was begun
    ├── LogError                 exit 6   lists or feedback that were kept are not there, or say nothing
    └── UnansweredError          exit 1   no worker has answered a request in time

Exit codes of the `eddyline` command: 0 done, 1 failed otherwise, 2 wrong usage (unknown flag or command),
3 configuration, 4 broker, 5 state, 6 data or model.

Nothing is handled here: `stream.console` prints an error and turns it into an exit code. `model` and
`index` raise errors of their own, as they know nothing of Kafka; the console maps them to exit 6.
"""

from typing import ClassVar


class EddylineError(Exception):
    """Base of all errors here: one clear message, and the remedy. Stop.

    `message` says what happened, and to which name or address; `remedy` says what the reader can do next, as
    an imperative sentence. `str(error)` is both.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.remedy}"


class ConfigError(EddylineError):
    """A setting is missing, unknown, or contradicts another one. Stop: it will not heal by itself."""

    exit_code = 3


class BrokerError(EddylineError):
    """Something about reaching Kafka, or about what it holds. See the subclasses; stop where in doubt."""

    exit_code = 4


class BrokerUnavailable(BrokerError):
    """No broker answers at the address, or it stopped answering. Brokers restart: it may heal."""


class BrokerStartError(BrokerError):
    """The local development broker cannot be started: no Java, no Kafka, a taken port, a crash. Stop."""


class TopicError(BrokerError):
    """A topic is missing, or its partitions or settings are not as needed. Stop: data could be lost."""


class RegistryError(EddylineError):
    """The schema registry does not answer, or not as one does. It may heal: a worker waits, a command stops."""

    exit_code = 4


class StateError(EddylineError):
    """Stored state is not of these topics, or cannot be read. Stop: never take new events for seen ones."""

    exit_code = 5


class ModelError(EddylineError):
    """A model folder or release is absent, corrupt, or does not fit the catalogue. Stop."""

    exit_code = 6


class ReplayError(EddylineError):
    """A replay has nothing to publish, or what it was begun with is not there any more. Stop: nothing is published."""

    exit_code = 6


class LogError(EddylineError):
    """Lists or feedback that were kept are not there, cannot be read, or say nothing of what was asked. Stop."""

    exit_code = 6


class UnansweredError(EddylineError):
    """No worker has answered a request in time. It may be answered yet: retry, where one runs."""
