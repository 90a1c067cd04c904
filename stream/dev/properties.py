"""The configuration files of the local broker, as text. Pure: no file is read or written here."""

from pathlib import Path

from stream.errors import BrokerStartError

FOR_EVER_MS = 100 * 365 * 24 * 3600 * 1000
"""A hundred years. Where Kafka takes -1 or its greatest number for "never", that is used instead."""
NEVER_MS = 2**63 - 1
MESSAGE_BYTES = 4_194_304
"""The largest message: four times Kafka's default, as dead letters wrap messages that were of full size."""

LOG4J2 = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %m (%c)%n
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
"""


def server_properties(data: Path, host: str, port: int, controller_port: int) -> str:
    """server.properties of one node that is broker and controller, with its data in the folder `data`.

    Raises `BrokerStartError` for a folder that Kafka cannot be told of (it splits `log.dirs` at commas).
    """
    if "," in str(data):
        problem = f"Kafka cannot keep data in {data}: the path has a comma"
        raise BrokerStartError(problem, "choose another state folder")
    broker, controller = f"{host}:{port}", f"{host}:{controller_port}"
    settings: dict[str, str | int] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{broker}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data),
        # One node: its own topics cannot have replicas. Few partitions, so that it starts and elects fast.
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        # Topics are created by the pipeline with the shape it needs, never by a typo.
        "auto.create.topics.enable": "false",
        "num.partitions": 4,
        # Groups form at once, and tests may use short sessions.
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        # After a crash the node waits for its own former session to expire before it may register again.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "message.max.bytes": MESSAGE_BYTES,
        "replica.fetch.max.bytes": MESSAGE_BYTES,
        # Event times may lie decades back, or ahead: no record is refused or deleted for it,
        # and no segment is closed early.
        "log.retention.ms": -1,
        "log.retention.bytes": -1,
        "log.message.timestamp.before.max.ms": NEVER_MS,
        "log.message.timestamp.after.max.ms": NEVER_MS,
        "log.roll.ms": FOR_EVER_MS,
        "offsets.retention.minutes": 365 * 24 * 60,
        # Compaction on, with a map that fits a heap of 512 MB (the default is 128 MB).
        "log.cleaner.enable": "true",
        "log.cleaner.dedupe.buffer.size": 16_777_216,
        "num.network.threads": 2,
        "num.io.threads": 4,
    }
    return "".join(f"{name}={_escaped(str(value))}\n" for name, value in settings.items())


def _escaped(value: str) -> str:
    """`value` as a Java properties file has it: backslashes doubled, what is not ASCII as UTF-16 escapes."""
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    codes = [int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2)]
    return "".join(chr(code) if 32 <= code < 127 else f"\\u{code:04x}" for code in codes)
