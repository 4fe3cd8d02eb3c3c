"""Fixtures that several test files share."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sleepers import Sleepers

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have the most slow tests, so that none of them is left to one process at the end."""
    num_slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -num_slow[item.path])


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real photographs, captions and weights: `CAPTIONING_SHARED`, by default `shared` beside the checkout."""
    folder = Path(os.environ.get("CAPTIONING_SHARED") or ROOT.parent / "shared").resolve()
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder}/data does not exist; set CAPTIONING_SHARED")
    return folder


TINY_IMAGES = 48


@pytest.fixture(scope="session")
def tiny_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with raw, clean and splits of a few generated scenes."""
    from captioning import cleaning, params, splits
    from captioning.downloads import raw

    folder = tmp_path_factory.mktemp("tables")
    values = params.read(ROOT / "params.yaml")
    settings = raw.read_settings(values["download"] | {"num_images": TINY_IMAGES})
    clean_settings = cleaning.CleanSettings.model_validate(values["clean"])
    with pytest.MonkeyPatch.context() as patch:  # another test process makes the same
        patch.setenv("CAPTIONING_HOME", str(folder / "home"))
        raw.download(settings, folder / "raw")
        cleaning.clean(folder / "raw", folder / "clean", clean_settings)
    splits.write_splits(
        folder / "clean", folder / "splits", splits.SplitSettings.model_validate(values["split"])
    )
    return folder


@pytest.fixture(scope="session")
def tiny_examples(tiny_tables: Path) -> Path:
    """Folder of examples of a few generated scenes, 64 x 64 pixels, in several shards."""
    from captioning.images import PixelTransform
    from captioning.preprocessing import PreprocessSettings, write_examples

    settings = PreprocessSettings(
        image=PixelTransform(height=64, width=64),
        storage="pixels",
        jpeg_quality=95,
        tokens="words",
        min_word_count=1,
        max_words=24,
        images_per_shard=16,
    )
    folder = tiny_tables / "examples"
    with pytest.MonkeyPatch.context() as patch:  # another test process makes the same
        patch.setenv("CAPTIONING_HOME", str(tiny_tables / "home"))
        write_examples(tiny_tables / "raw", tiny_tables / "clean", tiny_tables / "splits", folder, settings)
    return folder


@pytest.fixture(scope="session")
def prefect() -> Iterator[str]:
    """A Prefect server with a database of its own, started once for all files of a test process; its address."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness
    from scratch_project import LIMIT_SECONDS

    quickly = {PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS: 1}
    with temporary_settings(quickly), prefect_test_harness(server_startup_timeout=int(LIMIT_SECONDS)):
        yield str(PREFECT_API_URL.value())


@pytest.fixture
def sleepers() -> Iterator[Sleepers]:
    """Processes that sleep for minutes; none outlives the test."""
    sleepers = Sleepers()
    yield sleepers
    for process in sleepers.living():
        process.kill()
