"""The schema's versions: a new database gets the tables as they are now, an older one is brought on step by step.

`STEPS[n]` turns version n + 1 into version n + 2; all run in the one transaction that also writes the new version.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, insert, inspect, select, update

from penstock.errors import DataError
from penstock.ledger.schema import ledger_schema, metadata

Step = Callable[[Connection], None]

STEPS: Sequence[Step] = ()


def migrate(conn: Connection, name: str, steps: Sequence[Step] = STEPS) -> None:
    """Brings the database called `name` to version `len(steps) + 1`. `DataError` when it is newer or not a ledger."""
    newest = len(steps) + 1
    tables = set(inspect(conn).get_table_names())
    if ledger_schema.name not in tables:
        if tables & set(metadata.tables):
            raise DataError(f"{name} has tables of a ledger but no schema version: it is damaged. Restore a backup.")
        metadata.create_all(conn)
        conn.execute(insert(ledger_schema).values(version=newest))
        return
    version = conn.execute(select(ledger_schema.c.version)).scalar_one_or_none()
    if version is None:
        raise DataError(f"{name} has no schema version: it is damaged. Restore a backup.")
    if version > newest:
        raise DataError(
            f"{name} has schema version {version}, and this Penstock knows {newest} at most: a newer one wrote it. "
            "Install that version again, or restore a backup from before the upgrade."
        )
    for step in steps[version - 1 :]:
        step(conn)
    if version < newest:
        conn.execute(update(ledger_schema).values(version=newest))
