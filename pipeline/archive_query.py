"""SQL over the archive: DuckDB with views over decisions, verdicts and uploads; it reaches no file and no network."""

from typing import Any, Final

import duckdb

from pipeline.archive import Archive, overlapping
from pipeline.errors import RefusedError
from pipeline.messages import DECISIONS, SHADOWS, UPLOADS, VERDICTS

_VIEWS: Final = {
    "decisions": DECISIONS,
    "verdicts": VERDICTS,
    "uploads": UPLOADS,
    "shadows": SHADOWS,
}


def connect(archive: Archive, *, since_day: str = "") -> duckdb.DuckDBPyConnection:
    """Return a connection on which each view holds every archived record once.

    Raises:
        RefusedError: the archive cannot be read.
    """
    connection = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    sealed = archive.sealed()
    for view, topic in _VIEWS.items():
        files = archive.files(topic, since_day=since_day)
        connection.register(f"{view}_files", archive.dataset(files, topic, without=sealed))
        # Taking each once costs a sort, so it is done only where two files may hold the same record.
        alone = (
            'QUALIFY row_number() OVER (PARTITION BY "partition", "offset") = 1'
            if overlapping(files)
            else ""
        )
        connection.execute(f"CREATE VIEW {view} AS SELECT * FROM {view}_files {alone}")  # noqa: S608 -- our own words
    # What follows is somebody's own text: it reads what was registered and nothing else.
    connection.execute("SET enable_external_access = false")
    return connection


def ask(connection: duckdb.DuckDBPyConnection, sql: str) -> Any:
    """Return the answer as a reader of record batches, however many there are.

    Raises:
        RefusedError: the SQL is wrong; the message is DuckDB's own.
    """
    try:
        answer = connection.sql(sql)
        if answer is None:
            raise RefusedError("that asks for nothing: write SELECT … FROM decisions")
        return answer.to_arrow_reader(10_000)
    except duckdb.Error as error:
        raise RefusedError(f"{error}\nthere are the views {', '.join(_VIEWS)}") from error
