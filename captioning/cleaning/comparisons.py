"""Measured images beside each other -> verdicts that no look at one image gives: no captions, the same bytes, a twin.

DuckDB compares them in bounded memory; images with the split `predict` are compared with no other, so that each of
them is captioned and none is the reason why an image with captions is left out.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from captioning import tables
from captioning.cleaning import near_duplicates
from captioning.cleaning.near_duplicates import NearDuplicateSettings

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def compare_images(
    connection: "DuckDBPyConnection", measured: Path, judged: Path, settings: NearDuplicateSettings
) -> None:
    """Make the table `verdicts` (row, reason, detail, twin) of images that are not kept, or have a twin.

    Args:
        connection: where the tables are made.
        measured: folder of the measurements.
        judged: table of the judged captions.
        settings: what counts as a near-duplicate.
    """
    tables.open_table(connection, "measured", measured)
    tables.open_table(connection, "judged", judged)
    _find_silent(connection, with_caption=settings.by == "caption")
    _find_firsts(connection, "repeated", "SELECT row, image_id, sha256 AS key FROM good")
    _find_twins(connection, settings)
    connection.execute(
        """
        CREATE TABLE verdicts AS
            SELECT row, 'no-captions' AS reason, 'no caption of the image could be kept' AS detail, '' AS twin
            FROM silent
            UNION ALL SELECT row, 'duplicate-image', 'the same bytes as ' || first_id, '' FROM repeated
            UNION ALL SELECT row, '', '', first_id FROM twins
            ORDER BY row
        """
    )


def find_kept(connection: "DuckDBPyConnection") -> np.ndarray:
    """Tell of each row whether its image is kept, bool, one byte a row."""
    [(num_rows,)] = connection.sql("SELECT count(*) FROM measured").fetchall()
    is_kept = np.zeros(num_rows, dtype=bool)
    rows = connection.sql(
        """
        SELECT row FROM measured ANTI JOIN (SELECT row FROM verdicts WHERE reason <> '') USING (row)
        WHERE reason = ''
        """
    )
    for batch in rows.to_arrow_reader(tables.ROWS_PER_GROUP):
        is_kept[batch["row"].to_numpy()] = True
    return is_kept


def _find_silent(connection: "DuckDBPyConnection", *, with_caption: bool) -> None:
    """Make `silent` (row), and of the others `good`, with the first caption where that is asked for."""
    caption = "arg_min(caption, position)" if with_caption else "''"
    connection.execute(
        f"""
        CREATE TABLE captioned AS
            SELECT row, {caption} AS caption FROM judged WHERE reason = '' GROUP BY row;
        CREATE TABLE silent AS
            SELECT row FROM measured ANTI JOIN captioned USING (row) WHERE reason = '' AND split <> 'predict';
        CREATE VIEW good AS
            SELECT row, image_id, sha256, phash, caption FROM measured JOIN captioned USING (row)
            WHERE reason = '' AND split <> 'predict';
        """
    )


def _find_firsts(connection: "DuckDBPyConnection", name: str, keyed: str) -> None:
    """Make the table `name` (row, first_id) of rows whose key an earlier row has, with the earliest one's image_id.

    `keyed` is a query of row, image_id and key.
    """
    connection.execute(
        f"""
        CREATE TABLE {name} AS
            WITH keyed AS ({keyed}),
            firsts AS (
                SELECT key, min(row) AS first_row, arg_min(image_id, row) AS first_id
                FROM keyed GROUP BY key HAVING count(*) > 1
            )
            SELECT row, first_id FROM keyed JOIN firsts USING (key) WHERE row > first_row
        """
    )


def _find_twins(connection: "DuckDBPyConnection", settings: NearDuplicateSettings) -> None:
    """Make `twins` (row, first_id): images that look like an earlier one and are not the same bytes."""
    single = "good ANTI JOIN repeated USING (row)"
    match settings.by:
        case "none":
            connection.execute("CREATE TABLE twins (row BIGINT, first_id VARCHAR)")
        case "caption":
            _find_firsts(connection, "twins", f"SELECT row, image_id, caption AS key FROM {single}")
        case "phash":
            hashed = f"SELECT row, image_id, ('0x' || phash)::UBIGINT AS hash FROM {single}"
            _link_hashes(connection, f"SELECT DISTINCT hash FROM ({hashed}) ORDER BY hash", settings)
            _find_firsts(
                connection,
                "twins",
                f"SELECT row, image_id, coalesce(smallest, hash) AS key FROM ({hashed}) LEFT JOIN links USING (hash)",
            )


def _link_hashes(connection: "DuckDBPyConnection", query: str, settings: NearDuplicateSettings) -> None:
    """Make `links` (hash, smallest): the hashes of `query` that are close to others, with the smallest of the group."""
    reader = connection.sql(query).to_arrow_reader(tables.ROWS_PER_GROUP)
    batches = [batch["hash"].to_numpy() for batch in reader]
    hashes = np.concatenate([np.empty(0, dtype=np.uint64), *batches])
    grouped, smallest = near_duplicates.group(hashes, settings.max_distance)
    connection.register("grouped", pa.table({"hash": grouped, "smallest": smallest}))
    connection.execute("CREATE TABLE links AS SELECT * FROM grouped")
    connection.unregister("grouped")
