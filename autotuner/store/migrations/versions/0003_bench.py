"""Runs of `autotune bench`.

Revision: 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add their table."""
    op.create_table(
        "bench",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("code_version", sa.String(64), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("branch", sa.Text(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("metric", sa.String(64), nullable=False),
        sa.Column("maximize", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.String(64), nullable=False),
        sa.Column("environment_hash", sa.String(32), nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("value", sa.Float()),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("samples", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["environment_hash"], ["document.hash"], name="fk_bench_environment_hash"),
        sa.PrimaryKeyConstraint("id", name="pk_bench"),
    )
    op.create_index("ix_bench_file_branch", "bench", ["file", "branch"])
