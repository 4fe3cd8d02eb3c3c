"""A model as `captioning serve` is told it: a folder, NAME (its champion), NAME@ALIAS or NAME/VERSION."""

from dataclasses import dataclass
from pathlib import Path

from captioning import champion, params, store
from captioning.aliases import CHAMPION


@dataclass(frozen=True, kw_only=True)
class ModelName:
    """Where a model comes from, now and whenever it is looked for again."""

    name: str
    folder: Path | None = None
    alias: str | None = None
    """Which may move from version to version."""
    fixed_version: str | None = None

    def __str__(self) -> str:
        if self.folder:
            return str(self.folder)
        return f"{self.name}@{self.alias}" if self.alias else f"{self.name}/{self.fixed_version}"

    @property
    def may_change(self) -> bool:
        """Tell whether the registry can name another version later."""
        return self.alias is not None

    def version(self) -> str | None:
        """Return the version that is meant now; of a folder none, and none where no version has the alias.

        Raises:
            ValueError: the registry cannot be read.
        """
        return champion.version_called(self.name, self.alias) if self.alias else self.fixed_version

    def missing(self) -> str:
        """Say that there is no such version."""
        return (
            f"{self} is no version at {store.uri()}; `dvc repro` trains and registers one, or name a folder"
        )


def parse(text: str | None) -> ModelName:
    """Read what a person says; of None, it is the champion of the model that params.yaml names.

    Raises:
        ValueError: params.yaml is needed and not there.
    """
    if text is None:
        text = str(params.read()["register"]["model_name"])
    if (Path(text) / "captioner.json").exists():
        return ModelName(name=Path(text).resolve().name, folder=Path(text))
    if "@" in text:
        name, _, alias = text.rpartition("@")
        return ModelName(name=name, alias=alias)
    name, slash, version = text.rpartition("/")
    if slash and version.isdigit():
        return ModelName(name=name, fixed_version=version)
    return ModelName(name=text, alias=CHAMPION)
