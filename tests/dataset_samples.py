"""A small source of each data set, in the form in which the real one comes."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from captioning.datasets import (
    DatasetSettings,
    bms,
    coco,
    flickr8k,
    flickr30k,
    joined,
    karpathy,
    molecules,
    scenes,
    urls,
)
from captioning.datasets import folder as folder_dataset
from captioning.downloads.fetching import fetch
from captioning.records import Pair

COMMON = {
    "limit": None,
    "max_failed_share": 0.0,
    "timeout_seconds": 5.0,
    "retries": 0,
    "num_connections": 2,
    "connections_per_host": 2,
    "images_per_archive": 2,
    "max_image_bytes": 1_000_000,
    "max_image_seconds": 10.0,
    "allow_private_addresses": False,
}


def picture(colour: str) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(encoded, "JPEG")
    return encoded.getvalue()


def write_zip(path: Path, members: dict[str, bytes | str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def scenes_settings(folder: Path, **changes: Any) -> scenes.Settings:
    section = {"dataset": "scenes", "num_images": 20, "image_side_pixels": 64, "seed": 0}
    return scenes.Settings.model_validate(COMMON | section | changes)


def flickr8k_settings(folder: Path, **changes: Any) -> flickr8k.Settings:
    """Write archives with every oddity of the real ones."""
    photographs = {
        f"Flicker8k_Dataset/{name}.jpg": picture(name) for name in ("red", "green", "blue", "black")
    }
    shadow = {"__MACOSX/Flicker8k_Dataset/._red.jpg": b"shadow"}
    write_zip(folder / "Flickr8k_Dataset.zip", photographs | shadow)
    captions = "green.jpg#0\tA green picture .\nred.jpg#0\tA red picture .\nred.jpg#1\tIt is red .\n"
    captions += "white.jpg#0\tNot in the archive .\nred.jpg.1#0\tAn odd name .\nblack.jpg#0\tIn no list .\n"
    texts = {
        "Flickr8k.token.txt": captions,
        "Flickr_8k.trainImages.txt": "red.jpg\nwhite.jpg\n",
        "Flickr_8k.devImages.txt": "blue.jpg\n",
        "Flickr_8k.testImages.txt": "green.jpg\n",
        "readme.txt": "...",
    }
    write_zip(folder / "Flickr8k_text.zip", texts)
    section = {"dataset": "flickr8k", "source": folder.as_uri() + "/", "checksums": {}}
    return flickr8k.Settings.model_validate(COMMON | section | changes)


def karpathy_image(filename: str, split: str, **more: Any) -> dict[str, Any]:
    return {"filename": filename, "split": split, "sentences": [{"raw": f"A picture, {filename} ."}], **more}


def karpathy_settings(folder: Path, *images: dict[str, Any], **changes: Any) -> karpathy.Settings:
    images = images or tuple(
        karpathy_image(f"{split}.jpg", split) for split in ("train", "restval", "val", "test")
    )
    for image in images:
        path = folder / "images" / image.get("filepath", "") / image["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture("red"))
    (folder / "dataset.json").write_text(json.dumps({"dataset": "coco", "images": images}, indent=1))
    section = {
        "dataset": "karpathy",
        "source": str(folder / "dataset.json"),
        "images": (folder / "images").as_uri(),
    }
    return karpathy.Settings.model_validate(COMMON | section | changes)


def coco_photograph(part: str, number: int, year: int) -> str:
    return f"COCO_{part}{year}_{number:012d}.jpg" if year == 2014 else f"{number:012d}.jpg"


def coco_json(part: str, numbers: list[int], year: int) -> dict[str, Any]:
    """Return a caption file in the official form, annotations in no order, as in the real ones."""
    images = [
        {
            "license": 4,
            "file_name": coco_photograph(part, number, year),
            "height": 32,
            "width": 32,
            "id": number,
        }
        for number in numbers
    ]
    annotations = [
        {"image_id": number, "id": 10 * number + position, "caption": f"Caption {position} of {number}."}
        for position in (2, 1)
        for number in reversed(numbers)
    ]
    licenses = [
        {"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution License"}
    ]
    described: dict[str, Any] = {"info": {"year": year}, "images": images, "licenses": licenses}
    return described if part == "test" else described | {"annotations": annotations}


def coco_settings(folder: Path, **changes: Any) -> coco.Settings:
    """Write the official archives of a year, two photographs a part; the second of val is not in its archive."""
    year = changes.get("year", 2014)
    texts: dict[str, dict[str, bytes | str]] = {
        f"annotations_trainval{year}.zip": {},
        f"image_info_test{year}.zip": {},
    }
    for part, numbers in {"train": [30, 9], "val": [42, 391895], "test": [1, 14]}.items():
        photographs = {
            f"{part}{year}/{coco_photograph(part, n, year)}": picture("red") for n in numbers if n != 42
        }
        write_zip(folder / f"{part}{year}.zip", photographs)
        kind, archive = (
            ("image_info", "image_info_test") if part == "test" else ("captions", "annotations_trainval")
        )
        name = f"annotations/{kind}_{part}{year}.json"
        texts[f"{archive}{year}.zip"][name] = json.dumps(coco_json(part, numbers, year))
    for name, members in texts.items():
        write_zip(folder / name, members | {"annotations/instances_val.json": "{}"})
    section = {
        "dataset": "coco",
        "year": year,
        "parts": ["train", "val", "test"],
        "source": folder.as_uri(),
        "annotations": folder.as_uri() + "/",
        "karpathy": None,
        "checksums": {},
    }
    return coco.Settings.model_validate(COMMON | section | changes)


def karpathy_splits(folder: Path, splits: dict[str, str]) -> str:
    """Write a file of Karpathy's and return its path."""
    images = [karpathy_image(name, split) for name, split in splits.items()]
    (folder / "splits.json").write_text(json.dumps({"images": images, "dataset": "any"}))
    return str(folder / "splits.json")


def flickr30k_settings(folder: Path, **changes: Any) -> flickr30k.Settings:
    photographs = {
        f"flickr30k-images/{name}.jpg": picture("blue") for name in ("1000092795", "10002456", "7")
    }
    write_zip(folder / "flickr30k-images.zip", photographs)
    lines = [
        f"{name}.jpg#{number}\tCaption {number} ."
        for name in ("1000092795", "10002456")
        for number in range(2)
    ]
    (folder / "results_20130124.token").write_text("\n".join(lines) + "\n")
    section = {
        "dataset": "flickr30k",
        "images": str(folder / "flickr30k-images.zip"),
        "captions": (folder / "results_20130124.token").as_uri(),
        "karpathy": None,
        "checksums": {},
    }
    return flickr30k.Settings.model_validate(COMMON | section | changes)


def write_pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture("green"))


def folder_settings(
    folder: Path, table: str | bytes | None = None, **changes: Any
) -> folder_dataset.Settings:
    write_pictures(folder / "pictures", "a.jpg", "cats/b.PNG", "c d.jpg", "cats/unnamed.jpg", ".hidden.jpg")
    if table is None:
        table = "image,caption,split,license\n"
        table += (
            "cats/b.PNG,A green cat.,train,CC0\na.jpg,One.,val,\nc d.jpg,Two.,test,\n./cats/b.PNG,Cat.,,\n"
        )
    path = folder / changes.pop("name", "captions.csv")
    path.write_bytes(table.encode() if isinstance(table, str) else table)
    section = {
        "dataset": "folder",
        "images": str(folder / "pictures"),
        "captions": str(path),
        "image_column": "image",
        "caption_column": "caption",
        "split_column": "split",
        "license_column": "license",
        "uncaptioned": "predict",
    }
    return folder_dataset.Settings.model_validate(COMMON | section | changes)


def urls_settings(folder: Path, table: str | None = None, **changes: Any) -> urls.Settings:
    write_pictures(folder, "a.jpg", "b.jpg")
    if table is None:
        rows = [("a.jpg", "One."), ("b.jpg", "Two."), ("a.jpg", "Three."), ("gone.jpg", "Dead.")]
        rows = [((folder / name).as_uri(), caption) for name, caption in rows]
        table = "".join(json.dumps({"url": url, "caption": caption}) + "\n" for url, caption in rows)
        changes.setdefault("allow_private_addresses", True)
        changes.setdefault("name", "list.jsonl")
    path = folder / changes.pop("name", "list.csv")
    path.write_text(table)
    section = {
        "dataset": "urls",
        "source": str(path),
        "url_column": "url",
        "caption_column": "caption",
        "id_column": None,
        "split_column": None,
        "license_column": None,
    }
    return urls.Settings.model_validate(COMMON | section | changes)


INCHI = '"InChI=1S/C7H9NO/c1-5-3-6(2)8-7(5)4-9/h3-4,8H,1-2H3"'


def bms_members(folder: Path | None = None) -> dict[str, bytes | str]:
    """Return Kaggle's layout: labels, drawings in nested folders, one of train named but not there."""
    train, test = ["000011a64c74", "000019cc0cd2", "fff01234abcd"], ["00000d2a601c"]
    members: dict[str, bytes | str] = {
        "extra_approved_InChIs.csv": "InChI\n",
        "sample_submission.csv": "image_id,InChI\n" + "".join(f"{one},InChI=1S/H2O/h1H2\n" for one in test),
    }
    drawn = {"train": train[:2], "test": test}
    for part, ids in drawn.items():
        members |= {f"{part}/{one[0]}/{one[1]}/{one[2]}/{one}.png": picture(f"#{one[-6:]}") for one in ids}
    return members | {
        "train_labels.csv": "image_id,InChI\n" + "".join(f"{one},{INCHI}\n" for one in reversed(train))
    }


def bms_settings(folder: Path, **changes: Any) -> bms.Settings:
    write_zip(folder / "bms-molecular-translation.zip", bms_members())
    section = {
        "dataset": "bms",
        "source": str(folder / "bms-molecular-translation.zip"),
        "parts": ["train", "test"],
    }
    return bms.Settings.model_validate(COMMON | section | changes)


MOLECULE_STYLE = {
    "bond_pixels": {"min": 18, "max": 30},
    "max_side_pixels": 400,
    "margin_pixels": {"min": 2, "max": 8},
    "line_bonds": {"min": 0.05, "max": 0.1},
    "gap_bonds": {"min": 0.15, "max": 0.2},
    "letter_bonds": {"min": 0.45, "max": 0.6},
    "min_letter_pixels": 9,
    "fonts": ["telex", "freesans"],
    "turned_degrees": 180,
    "mirrored_share": 0.5,
    "methyl_share": 0.0,
    "hydrogen_share": 0.0,
    "chiral_hydrogen_share": 0.5,
    "crossed_share": 1.0,
    "double_wedge_share": 0.2,
    "coordgen_share": 0.0,
}
MOLECULE_SCAN = {
    "smooth_share": 0.0,
    "threshold": {"min": 128, "max": 200},
    "coarse": {"share": 0.0, "most": 0.0},
    "tilt": {"share": 0.0, "most": 0.0},
    "quarter_turn_share": 0.0,
    "salt": {"share": 0.0, "most": 0.0},
    "pepper": {"share": 0.0, "most": 0.0},
    "breaks": {"share": 0.0, "most": 0.0},
}
"""Without any defect."""


def molecules_settings(folder: Path, table: str | None = None, **changes: Any) -> molecules.Settings:
    """Return settings of made-up molecules, or of those in `table`, lines of SMILES where no other name is given."""
    if table is not None:
        path = folder / changes.pop("name", "molecules.smi")
        path.write_text(table)
        changes.setdefault("source", str(path))
    section = {
        "dataset": "molecules",
        "source": None,
        "smiles_column": None,
        "num_molecules": 6,
        "heavy_atoms": {"min": 4, "max": 9},
        "caption": "inchi",
        "shares": {"train": 0.8, "val": 0.1, "test": 0.1},
        "copies": {"train": 2, "val": 1, "test": 1},
        "seed": 0,
        "style": MOLECULE_STYLE,
        "scan": MOLECULE_SCAN,
        "images_per_archive": 100,
    }
    if table is not None:
        section["num_molecules"] = None
    return molecules.Settings.model_validate(COMMON | section | changes)


def own_keys(settings: DatasetSettings) -> dict[str, Any]:
    """Return a section's keys without the common ones: a part of `joined`."""
    common = set(DatasetSettings.model_fields) - {"dataset"}
    return {key: value for key, value in settings.model_dump().items() if key not in common}


def joined_settings(folder: Path, **changes: Any) -> joined.Settings:
    for name in ("flickr", "mine", "links"):
        (folder / name).mkdir()
    parts = {
        "flickr": own_keys(flickr30k_settings(folder / "flickr")),
        "mine": own_keys(folder_settings(folder / "mine")) | {"limit": 2},
        "links": own_keys(urls_settings(folder / "links")),
    }
    section = {"dataset": "joined", "parts": parts, "allow_private_addresses": True}
    return joined.Settings.model_validate(COMMON | section | changes)


SMALL: dict[str, Callable[[Path], DatasetSettings]] = {
    "bms": bms_settings,
    "coco": coco_settings,
    "flickr30k": flickr30k_settings,
    "flickr8k": flickr8k_settings,
    "folder": folder_settings,
    "joined": joined_settings,
    "karpathy": karpathy_settings,
    "molecules": molecules_settings,
    "scenes": scenes_settings,
    "urls": urls_settings,
}
"""A small source of each data set: a function that writes it into a folder and returns its settings."""


def fetch_quickly(url: str, path: Path, sha256: str | None) -> None:
    fetch(url, path, sha256, timeout_seconds=5, retries=0)


def prepared(dataset: ModuleType, folder: Path, settings: DatasetSettings) -> list[Pair]:
    folder.mkdir()
    dataset.prepare(folder, settings, fetch_quickly)
    return list(dataset.read_pairs(folder, settings))
