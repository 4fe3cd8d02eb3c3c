"""A data set's archives and single images -> one folder of raw data with one row an image, fetched or not.

Until it is whole the folder lies in `CAPTIONING_HOME/.work/download`, named by what decides its content, and an
interrupted run goes on there: archives at the next byte, single images at the next part. What was fetched is checked
against its source before it is used again. Memory does not grow with the number of images.
"""

import asyncio
import itertools
import posixpath
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captioning import downloads, formats, home, lookup, tables
from captioning.datasets import MADE, DatasetSettings
from captioning.downloads import fetching, parts
from captioning.downloads.answers import FetchError
from captioning.downloads.fetching import fetch, full_disk_named
from captioning.downloads.parts import PAIR_SCHEMA, ROW_SCHEMA, Parts, name_counts, reason
from captioning.fingerprints import code_identity, fingerprint
from captioning.outputs import whole_folder
from captioning.records import Pair

CAPTION_SCHEMA = pa.schema([("image_id", pa.string()), ("position", pa.int32()), ("caption", pa.string())])
UNFINISHED = ".unfinished"
"""Folder inside the unfinished raw folder: what is not whole yet, and what the next run goes on by."""
MEMORY_FOR_IDS = "400MB"
"""Held while repeated ids are looked for; what they need besides goes to disk."""
EFFORT = ("timeout_seconds", "retries", "max_image_seconds")
"""Keys that say how hard it is tried; a change of them leaves what was fetched as it is."""
BOUNDS = ("max_failed_share", "num_connections", "connections_per_host")
"""Keys that change nothing about any one image."""
OPEN_SCHEMES = {"http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}
"""A data set may name images anywhere at these; at others only where the user said so."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much a download brought."""

    num_images: int
    num_captions: int
    reasons: dict[str, int]
    """Failed images by the fixed word that says why."""

    @property
    def num_failed(self) -> int:
        """Return the number of images that could not be fetched."""
        return sum(self.reasons.values())


def read_settings(section: Mapping[str, Any]) -> DatasetSettings:
    """Return the settings of the data set that the `download` section names."""
    name = section.get("dataset")
    if not isinstance(name, str):
        raise ValueError(f"dataset: expected one of {', '.join(lookup.names('datasets'))}, got {name!r}")
    settings: DatasetSettings = lookup.find("datasets", name).Settings.model_validate(dict(section))
    return settings


def download(settings: DatasetSettings, folder: Path) -> Counts:
    """Bring a data set into `folder`, which appears whole or not at all.

    Writes the data set's own archives, numbered zip files with the images that have no archive, and the tables
    rows.parquet and captions.parquet.

    Raises:
        ValueError: there are no images, ids repeat, more than `max_failed_share` of the images failed, the disk is
            full, or another process is downloading the same.
    """
    dataset = lookup.find("datasets", settings.dataset)
    with whole_folder(folder, resume_in=_work_folder(settings)) as aside:
        unfinished = aside / UNFINISHED
        unfinished.mkdir(exist_ok=True)
        _clear(aside, unfinished)
        with full_disk_named(aside, f"the data set {settings.dataset}"):
            counts = _bring(dataset, settings, aside, unfinished)
        shutil.rmtree(unfinished)
    return counts


def _work_folder(settings: DatasetSettings) -> Path:
    """Return the folder that an interrupted run of the same settings and code left, or a new one."""
    decisive = {key: value for key, value in settings.model_dump().items() if key not in {*EFFORT, *BOUNDS}}
    code = code_identity(downloads, formats, *(lookup.find("datasets", name) for name in _datasets(decisive)))
    return home.work("download", fingerprint(decisive, code)[:32])


def _datasets(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the data sets that settings name, those of parts that are joined, too."""
    for key, value in settings.items():
        if key == "dataset":
            yield value
        elif isinstance(value, Mapping):
            yield from _datasets(value)


def _clear(folder: Path, unfinished: Path) -> None:
    """Delete what an interrupted run left, but for whole files that were fetched or made, and parts."""
    kept = fetching.finished_files(unfinished)
    for path in folder.rglob("*"):
        is_kept = path in kept or parts.is_part(path) or MADE in path.relative_to(folder).parts[:-1]
        if path.is_file() and unfinished not in path.parents and not is_kept:
            path.unlink()


def _bring(dataset: ModuleType, settings: DatasetSettings, folder: Path, unfinished: Path) -> Counts:
    def fetch_file(url: str, path: Path, sha256: str | None = None) -> None:
        fetch(
            url,
            path,
            sha256,
            timeout_seconds=settings.timeout_seconds,
            retries=settings.retries,
            allow_private_addresses=settings.allow_private_addresses,
            unfinished=unfinished,
        )

    dataset.prepare(folder, settings, fetch_file)
    pairs = itertools.islice(dataset.read_pairs(folder, settings), settings.limit)
    num_captions = _write_pairs(pairs, unfinished / "pairs.parquet", folder / "captions.parquet", settings)
    _refuse_repeated_ids(unfinished / "pairs.parquet")
    images = Parts(
        unfinished / "pairs.parquet", folder, unfinished, effort=[getattr(settings, key) for key in EFFORT]
    )
    asyncio.run(_fetch_images(images, settings))
    reasons: Counter[str] = Counter()
    num_images = tables.write(_count_failures(images.rows(), reasons), folder / "rows.parquet", ROW_SCHEMA)
    counts = Counts(num_images=num_images, num_captions=num_captions, reasons=dict(reasons))
    if counts.num_failed > settings.max_failed_share * num_images:
        images.mark_refused()
    _refuse_failures(counts, settings)
    return counts


def _write_pairs(pairs: Iterable[Pair], table: Path, captions: Path, settings: DatasetSettings) -> int:
    """Write what the data set states, a part at a time as one row group; return the number of captions."""
    num_captions = 0
    with (
        pq.ParquetWriter(table, PAIR_SCHEMA) as pair_table,
        pq.ParquetWriter(captions, CAPTION_SCHEMA) as caption_table,
    ):
        while group := list(itertools.islice(pairs, settings.images_per_archive)):
            columns = {name: [getattr(pair, name) for pair in group] for name in PAIR_SCHEMA.names}
            columns["source"] = [pair.source or settings.dataset for pair in group]
            rows = pa.Table.from_pydict(columns, PAIR_SCHEMA)
            pair_table.write_table(rows, row_group_size=len(group))
            spoken = [(pair.image_id, *caption) for pair in group for caption in enumerate(pair.captions)]
            lists = zip(*spoken, strict=True) if spoken else ((), (), ())
            caption_table.write_table(
                pa.Table.from_arrays(
                    [pa.array(values, kind.type) for values, kind in zip(lists, CAPTION_SCHEMA, strict=True)],
                    schema=CAPTION_SCHEMA,
                )
            )
            num_captions += len(spoken)
    return num_captions


def _refuse_repeated_ids(pairs: Path) -> None:
    with tables.database() as connection:
        connection.execute(f"SET memory_limit = '{MEMORY_FOR_IDS}'")
        tables.open_table(connection, "pairs", pairs)
        query = "SELECT image_id FROM pairs GROUP BY image_id HAVING count(*) > 1 ORDER BY image_id LIMIT 1"
        repeated = connection.execute(query).fetchone()
    if repeated:
        raise ValueError(
            f"image_id {repeated[0]!r} occurs twice; every image needs its own id: correct the source, "
            "or the way the data set's module makes ids"
        )


async def _fetch_images(images: Parts, settings: DatasetSettings) -> None:
    stated = list(_stated_folders(settings))
    await images.fetch(
        max_bytes=settings.max_image_bytes,
        max_seconds=settings.max_image_seconds,
        timeout_seconds=settings.timeout_seconds,
        allow_private_addresses=settings.allow_private_addresses,
        retries=settings.retries,
        num_connections=settings.num_connections,
        connections_per_host=settings.connections_per_host,
        refuse=lambda url: None if settings.allow_private_addresses else _refuse_unstated(url, stated),
    )


def _stated_folders(settings: DatasetSettings) -> Iterator[str]:
    """Yield the addresses of the folders that the `download` section names, or in which a file lies that it names."""
    waiting: list[Any] = [value for key, value in settings.model_dump().items() if key != "dataset"]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
        elif isinstance(value, str) and value:
            address = value if "://" in value else Path(value).resolve().as_uri()
            path = urlsplit(address).path
            is_file = bool(posixpath.splitext(path)[1]) and not Path(url2pathname(path)).is_dir()
            yield _plain(posixpath.dirname(address) if is_file else address)


def _refuse_unstated(url: str, stated: Iterable[str]) -> None:
    """Refuse a file of this machine, or another private place, that only a list of images names."""
    if "://" in url and url.partition("://")[0].lower() not in OPEN_SCHEMES:
        plain = _plain(url)
        if not any(plain.startswith(f"{folder}/") for folder in stated):
            raise FetchError(
                "not-allowed",
                f"{url} lies in no folder that the section download names; download.allow_private_addresses allows it",
                is_lasting=True,
            )


def _plain(address: str) -> str:
    """Return an address with its path decoded and without `..`, to be compared."""
    scheme, _, rest = address.partition("://")
    return f"{scheme.lower()}://{posixpath.normpath(unquote(rest))}"


def _count_failures(rows: Iterable[pa.RecordBatch], reasons: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows unchanged and count the failed ones by their reason."""
    for batch in rows:
        failed = batch.filter(pc.equal(batch["status"], "failed"))
        reasons.update(reason(error) for error in failed["error"].to_pylist())
        yield batch


def _refuse_failures(counts: Counts, settings: DatasetSettings) -> None:
    if not counts.num_images:
        raise ValueError(
            f"data set {settings.dataset!r} has no images; check its settings in the section download"
        )
    share = counts.num_failed / counts.num_images
    if share > settings.max_failed_share:
        raise ValueError(
            f"{counts.num_failed:,} of {counts.num_images:,} images could not be fetched "
            f"({name_counts(Counter(counts.reasons))}): "
            f"a share of {share:.4f}, at most {settings.max_failed_share} is allowed; "
            "correct the source, try again later, or raise download.max_failed_share"
        )
