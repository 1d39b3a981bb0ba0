"""The first tables.

Revision: 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create everything."""
    _create_studies()
    _create_trials()
    _create_history()


def _create_studies() -> None:
    op.create_table(
        "document",
        sa.Column("hash", sa.String(32), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_document"),
    )
    op.create_table(
        "study",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("code_version", sa.String(64), nullable=False),
        sa.Column("spec_hash", sa.String(32), nullable=False),
        sa.Column("metric", sa.String(64), nullable=False),
        sa.Column("maximize", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["spec_hash"], ["document.hash"], name="fk_study_spec_hash"),
        sa.PrimaryKeyConstraint("id", name="pk_study"),
        sa.UniqueConstraint("name", name="uq_study_name"),
        sqlite_autoincrement=True,
    )


def _create_trials() -> None:
    op.create_table(
        "trial",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("code_version", sa.String(64), nullable=False),
        sa.Column("environment_hash", sa.String(32)),
        sa.Column("origin", sa.String(32), nullable=False),
        sa.Column("config_hash", sa.String(32), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("failure_kind", sa.String(32)),
        sa.Column("contended", sa.Boolean(), nullable=False),
        sa.Column("feasible", sa.Boolean(), nullable=False),
        sa.Column("value", sa.Float()),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text()),
        sa.ForeignKeyConstraint(["environment_hash"], ["document.hash"], name="fk_trial_environment_hash"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_trial_study_id"),
        sa.PrimaryKeyConstraint("study_id", "number", name="pk_trial"),
    )
    op.create_index("ix_trial_study_id_failure_kind", "trial", ["study_id", "failure_kind"])
    op.create_index("ix_trial_study_id_feasible_value", "trial", ["study_id", "feasible", "value"])
    op.create_table(
        "sample",
        sa.Column("study_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id", "number"], ["trial.study_id", "trial.number"], name="fk_sample_study_id_number"
        ),
        sa.PrimaryKeyConstraint("study_id", "number", name="pk_sample"),
    )


def _create_history() -> None:
    op.create_table(
        "verification",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("code_version", sa.String(64), nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("gain_ratio", sa.Float()),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_verification_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_verification"),
    )
    op.create_index("ix_verification_study_id", "verification", ["study_id"])
    op.create_table(
        "event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("code_version", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_event_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
    )
    op.create_index("ix_event_study_id", "event", ["study_id"])
