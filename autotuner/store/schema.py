"""The tables of the record. Rows are only appended; deleting a study is the one exception.

A changed table needs a migration in `migrations/versions` and a new `HEAD`; a test compares the two.
"""

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

HEAD = "0004"
VERSION_TABLE = "autotune_revision"
APPLICATION_ID = 0x4154554E  # "ATUN", in the header of an SQLite file

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Texts that many rows share (specs, environments), stored once under the hash of their content.
document = Table(
    "document",
    metadata,
    Column("hash", String(32), primary_key=True),
    Column("body", Text, nullable=False),
)

study = Table(
    "study",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("created_at", String(32), nullable=False),  # every time is UTC, ISO 8601
    Column("code_version", String(64), nullable=False),
    Column("spec_hash", ForeignKey("document.hash"), nullable=False),
    Column("metric", String(64), nullable=False),
    Column("maximize", Boolean, nullable=False),
    sqlite_autoincrement=True,  # a deleted study's id never means another study
)

trial = Table(
    "trial",
    metadata,
    Column("study_id", ForeignKey("study.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("created_at", String(32), nullable=False),
    Column("code_version", String(64), nullable=False),
    Column("environment_hash", ForeignKey("document.hash")),
    Column("origin", String(32), nullable=False),
    Column("config_hash", String(32), nullable=False),
    Column("config", Text, nullable=False),
    Column("failure_kind", String(32)),
    Column("contended", Boolean, nullable=False),
    Column("feasible", Boolean, nullable=False),
    Column("value", Float),  # of the first objective; NULL when there is none or it is not a number
    Column("outcome", Text, nullable=False),
    Column("verdict", Text),
    Index(None, "study_id", "failure_kind"),
    Index(None, "study_id", "feasible", "value"),
)

# Apart from `trial`, so that reading 100,000 trials does not read their raw samples.
sample = Table(
    "sample",
    metadata,
    Column("study_id", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
    ForeignKeyConstraint(["study_id", "number"], ["trial.study_id", "trial.number"]),
)

verification = Table(
    "verification",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("study.id"), nullable=False, index=True),
    Column("created_at", String(32), nullable=False),
    Column("code_version", String(64), nullable=False),
    Column("decision", String(16), nullable=False),
    Column("gain_ratio", Float),
    Column("body", Text, nullable=False),
)

event = Table(
    "event",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("study.id"), nullable=False, index=True),
    Column("created_at", String(32), nullable=False),
    Column("code_version", String(64), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("payload", Text, nullable=False),
)

# What machines can do at most: belongs to no study.
ceilings = Table(
    "ceilings",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created_at", String(32), nullable=False),
    Column("code_version", String(64), nullable=False),
    Column("machine_hash", String(32), nullable=False, index=True),  # of the environment they hold for
    Column("body", Text, nullable=False),
)

# Runs of `autotune bench`: they belong to a file and a branch, not to a study.
bench = Table(
    "bench",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created_at", String(32), nullable=False),
    Column("code_version", String(64), nullable=False),
    Column("file", Text, nullable=False),
    Column("branch", Text, nullable=False),
    Column("settings", Text, nullable=False),
    Column("metric", String(64), nullable=False),
    Column("maximize", Boolean, nullable=False),
    Column("revision", String(64), nullable=False),
    Column("environment_hash", ForeignKey("document.hash"), nullable=False),
    Column("decision", String(16), nullable=False),
    Column("value", Float),  # of the objective; NULL when it could not be measured
    Column("body", Text, nullable=False),
    Column("samples", LargeBinary, nullable=False),
    Index(None, "file", "branch"),
)

# What the daemon did and decided, service by service.
journal = Table(
    "journal",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created_at", String(32), nullable=False),
    Column("code_version", String(64), nullable=False),
    Column("service", String(64), nullable=False),
    Column("token", Integer, nullable=False),  # of the lease under which it was written
    Column("kind", String(32), nullable=False),
    Column("payload", Text, nullable=False),
    Index(None, "service", "kind"),
)

# Who leads a service: the one kind of row that is changed.
lease = Table(
    "lease",
    metadata,
    Column("service", String(64), primary_key=True),
    Column("token", Integer, nullable=False),  # grows with every holder: an older one can no longer write
    Column("holder", Text, nullable=False),
    Column("expires_at", Float, nullable=False),  # seconds since 1970
)
