"""dvc.yaml says the truth: about the code that each stage runs, and about the settings that it reads."""

import ast
import re
from collections.abc import Iterator
from contextlib import chdir
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from captioning import params
from flows.stage_graph import read_stages

ROOT = Path(__file__).parents[1]

STAGES = ("download", "clean", "split", "validate", "preprocess", "inspect", "train", "evaluate", "register")

READERS = {
    "download": {"download"},
    "clean": {"clean"},
    "split": {"split"},
    "validate": {"validate"},
    "preprocess": {"preprocess"},
    "preprocess.tokens": {"preprocess", "validate"},  # whose words are counted there
    "inspect": {"inspect"},
    "train": {"train"},
    "evaluate": {"evaluate"},
    "evaluate.generation": {"evaluate", "register"},  # the registered model captions as it was scored
    "register": {"register"},
    "register.model_name": {"register", "validate"},  # whose champion's training data these are compared with
}
"""Section, or what keys begin with, of params.yaml -> the stages that a change reruns; more if outputs change."""

ONLY_RECORDED = {
    "validate": {"register", "preprocess"},  # the name and the tokens alone, which are params
    "train": {"register", "all"},
    "register": {"all"},
}
"""Reviewed: sections that a stage reads besides, to write them into MLflow's records and into no output."""

CANNOT_CHANGE_OUTPUT = {
    "stages": "ends a refused stage with its message",
    "captioning": "switches telemetry off",
    "captioning.params": "reads params.yaml, whose values dvc.yaml lists as params",
    "captioning.lookup": "finds a module, which is a dep itself",
    "captioning.home": "says where caches and the registry lie",
    "captioning.fingerprints": "names where interrupted work is found again",
    "captioning.outputs": "renames what was written aside",
    "captioning.progress": "prints",
    "captioning.distributed": "says which of several processes this is, whose number changes no result",
    "captioning.workers": "decides where pieces of work are done",
    "captioning.tracking": "reports to MLflow what is in the outputs anyway",
    "captioning.store": "opens the MLflow database",
    "captioning.creation": "makes rows in it",
    "captioning.lineage": "records with a version what made it",
}
"""Reviewed: modules that need not be deps, and why an edit to them cannot change a byte of any output."""


def load(name: str) -> dict[str, Any]:
    values: dict[str, Any] = YAML(typ="safe", pure=True).load((ROOT / name).read_text())
    return values


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


# --- names


def test_the_stages_run_in_the_documented_order() -> None:
    assert [stage.name for stage in read_stages()] == list(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_one_name_for_file_command_and_section(stage: str) -> None:
    described = load("dvc.yaml")["stages"][stage]
    assert (ROOT / "stages" / f"{stage}.py").is_file()
    assert described["cmd"].startswith(f"python -m stages.{stage} ")
    assert described["params"][0] == stage
    assert described["desc"]
    assert stage in load("params.yaml")
    assert stage in params.SECTIONS


def test_there_are_no_stages_and_sections_besides() -> None:
    assert set(load("dvc.yaml")["stages"]) == set(load("params.yaml")) == set(params.SECTIONS) == set(STAGES)
    assert {path.stem for path in (ROOT / "stages").glob("*.py")} == {"__init__", *STAGES}


def test_only_the_stage_that_uses_the_network_is_retried() -> None:
    assert [stage.name for stage in read_stages() if stage.retries] == ["download"]


def test_a_stage_that_hangs_is_ended_after_days_those_that_resume_later() -> None:
    limits = {stage.name: stage.timeout_seconds for stage in read_stages()}
    assert set(limits) == set(STAGES)
    days = {name: (limit or 0) / 86_400 for name, limit in limits.items()}
    assert {name for name, own in days.items() if own == 3} == {"download", "clean", "preprocess", "train"}
    assert set(days.values()) == {1, 3}


# --- deps: what a stage imports


@cache
def file_of(module: str) -> Path | None:
    """Return the file of a module of this project, relative to the root; None for anything else."""
    if module.split(".", maxsplit=1)[0] not in ("captioning", "stages"):
        return None
    path = Path(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if (ROOT / candidate).is_file()), None)


@cache
def imports(module: str) -> frozenset[str]:
    """Return what a module names of this project: imports anywhere in it, parts found by name, files run."""
    path = file_of(module)
    assert path is not None, module
    folder = ".".join(path.parent.parts)
    named = {
        name for node in statements(ast.parse((ROOT / path).read_text())) for name in names_in(node, folder)
    }
    parents = {
        ".".join(name.split(".")[:length]) for name in named for length in range(1, name.count(".") + 1)
    }
    return frozenset(name for name in named | parents if file_of(name))


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a module without what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            yield from statements(node)


def names_in(node: ast.AST, folder: str) -> Iterator[str]:
    match node:
        case ast.Import(names=aliases):
            yield from (alias.name for alias in aliases)
        case ast.ImportFrom(module=module, names=aliases, level=level):
            assert level == 0, "relative imports are not used here"
            yield str(module)
            yield from (f"{module}.{alias.name}" for alias in aliases)
        case ast.Call(args=[ast.Constant(value=str(kind)), *_]) if called(node) in {
            "find",
            "names",
            "named_part",
        }:
            parts = (ROOT / "captioning" / kind).glob("*.py")
            yield from (f"captioning.{kind}.{part.stem}" for part in parts if part.stem != "__init__")
        case ast.Constant(value=str(text)) if re.fullmatch(r"\w+\.py", text):
            yield f"{folder}.{text.removesuffix('.py')}"


def called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def reached(module: str) -> set[str]:
    """Return every module that running `module` may load; not what reviewed ones import."""
    found: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        found.add(name)
        if name not in CANNOT_CHANGE_OUTPUT:
            waiting |= imports(name) - found
    return found


def is_covered(path: Path, deps: list[str]) -> bool:
    """Tell whether a file is a dep, lies in a folder that is one, or is one choice of a templated one."""
    for dep in deps:
        pattern = re.sub(r"\\\$\\\{[^}]+\\\}", r"(?!__init__)\\w+", re.escape(dep))
        if re.fullmatch(rf"{pattern}(/.*)?", path.as_posix()):
            return True
    return False


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_all_code_that_a_stage_runs(stage: str) -> None:
    deps = load("dvc.yaml")["stages"][stage]["deps"]
    required = [file_of(name) for name in sorted(reached(f"stages.{stage}") - set(CANNOT_CHANGE_OUTPUT))]
    missing = [path.as_posix() for path in required if path and not is_covered(path, deps)]
    assert not missing, f"dvc.yaml: add to the deps of {stage}, whose code imports them: {missing}"


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_no_code_that_a_stage_does_not_run(stage: str) -> None:
    files = [path for name in reached(f"stages.{stage}") if (path := file_of(name))]
    code = [
        dep for dep in load("dvc.yaml")["stages"][stage]["deps"] if dep.startswith(("captioning", "stages"))
    ]
    superfluous = [dep for dep in code if not any(is_covered(path, [dep]) for path in files)]
    assert not superfluous, (
        f"dvc.yaml: remove from the deps of {stage}, which never imports them: {superfluous}"
    )


def test_a_lazy_import_and_a_part_found_by_name_are_seen() -> None:
    source = "def f():\n    import captioning.vocabulary\n    return lookup.find('decoders', name)\n"
    named = {name for node in statements(ast.parse(source)) for name in names_in(node, "captioning")}
    assert {"captioning.vocabulary", "captioning.decoders.soft_attention"} <= named


def test_a_template_covers_every_choice_but_not_the_package() -> None:
    deps = ["captioning/decoders/${train.decoder.name}.py"]
    assert is_covered(Path("captioning/decoders/adaptive.py"), deps)
    assert not is_covered(Path("captioning/decoders/__init__.py"), deps)
    assert not is_covered(Path("captioning/encoders/adaptive.py"), deps)


def test_the_reviewed_list_names_only_modules_that_exist() -> None:
    assert [name for name in CANNOT_CHANGE_OUTPUT if not file_of(name)] == []


# --- params: what a stage reads


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_loads_exactly_the_sections_that_rerun_it(stage: str) -> None:
    source = (ROOT / "stages" / f"{stage}.py").read_text()
    read = {section or "all" for section in re.findall(r"\bparams\.(?:load\(\"(\w+)\"|read\(\))", source)}
    assert read == {stage} | ONLY_RECORDED.get(stage, set())


class FrozenProject:
    """A copy of dvc.yaml and params.yaml whose stages DVC holds for done; all other files are stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
        self.write_params(load("params.yaml"))
        with chdir(folder), Repo.init(no_scm=True) as repo:
            for stage in repo.index.stages:
                for path in [*stage.deps, *stage.outs]:
                    self._stand_in(Path(path.def_path))
            repo.commit(force=True)

    def _stand_in(self, path: Path) -> None:
        if path.name == "params.yaml":
            return
        is_file = path.suffix or (ROOT / path).is_file()
        file = self.folder / path if is_file else self.folder / path / "one"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path.as_posix())

    def write_params(self, values: dict[str, Any]) -> None:
        with (self.folder / "params.yaml").open("w") as file:
            YAML(typ="safe").dump(values, file)

    def stages_to_rerun(self, values: dict[str, Any]) -> set[str]:
        self.write_params(values)
        with chdir(self.folder), Repo() as repo:
            return set(repo.status())


@pytest.fixture(scope="module")
def frozen_project(tmp_path_factory: pytest.TempPathFactory) -> FrozenProject:
    return FrozenProject(tmp_path_factory.mktemp("frozen"))


def leaf_keys(values: dict[str, Any], *above: str) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaf_keys(value, *above, key)
        else:
            yield (*above, key)


def with_other_value(values: dict[str, Any], key: tuple[str, ...]) -> dict[str, Any]:
    """Return a copy of `values` in which one leaf has another value of the same kind."""
    first, *rest = key
    if rest:
        return {**values, first: with_other_value(values[first], tuple(rest))}
    match values[first]:
        case bool(value):
            other: Any = not value
        case int(value) | float(value):
            other = value + 1
        case str(value):
            other = f"another_{value}"
        case list(value):
            other = [*value, "another"]
        case _:
            other = 1
    return {**values, first: other}


def test_nothing_reruns_when_no_setting_changed(frozen_project: FrozenProject) -> None:
    assert frozen_project.stages_to_rerun(load("params.yaml")) == set()


@pytest.mark.parametrize("section", STAGES)
def test_each_setting_reruns_exactly_the_stages_that_read_it(
    section: str, frozen_project: FrozenProject
) -> None:
    values = load("params.yaml")
    keys = list(leaf_keys({section: values[section]}))
    reruns = {".".join(key): frozen_project.stages_to_rerun(with_other_value(values, key)) for key in keys}
    assert reruns == {key: READERS[max(filter(key.startswith, READERS), key=len)] for key in reruns}
    assert reruns, f"params.yaml has no setting in section {section}"


# --- nothing about the machine


def texts(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for key, inner in value.items():
                yield str(key)
                yield from texts(inner)
        case list():
            for inner in value:
                yield from texts(inner)
        case _:
            yield str(value)


@pytest.mark.parametrize("name", ["dvc.yaml", "params.yaml"])
def test_no_path_leads_out_of_the_project(name: str) -> None:
    outside = re.compile(r"(^|[\s=:])(/|~|\.\.(/|$)|[A-Za-z]:\\|file:)")
    assert [text for text in texts(load(name)) if outside.search(text)] == []


@pytest.mark.parametrize("name", ["dvc.yaml", "params.yaml"])
def test_no_count_of_processes_or_devices_is_part_of_a_result(name: str) -> None:
    machine = re.compile(
        r"worker|\bprocess|_process|device|gpu|cuda|thread|nproc|torchrun|world_size|cluster|(?<!per_)host",
        re.I,
    )
    described = {key: value for key, value in load(name).items() if key != "stages"}
    described |= {stage: {**text, "desc": ""} for stage, text in load(name).get("stages", {}).items()}
    assert [text for text in texts(described) if machine.search(text)] == []
