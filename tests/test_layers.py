"""The walls of the house, kept true by reading every file's imports."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cvmh"
FILES = sorted(PACKAGE.rglob("*.py"))

# A part imports only from lower levels, from its own folder, and, at the bottom, the files named.
LEVELS = {
    "version": 0,
    "errors": 0,
    "memory": 0,
    "progress": 0,
    "files": 0,
    "classes": 0,
    "config": 0,
    "settings": 0,
    "page": 0,
    "ops": 1,
    "geo": 1,
    "metrics": 1,
    "plots": 1,
    "models": 2,
    "datasets": 2,
    "train": 3,
    "predict": 3,
    "report": 4,
    "cli": 5,
}
# A heavy or foreign library may be imported only here.
HOMES = {
    "rasterio": ("geo/",),
    "pyogrio": ("geo/",),
    "shapely": ("geo/",),
    "pyarrow": ("geo/",),
    "click": ("cli/",),
    "rich": ("cli/",),
    "lightning": ("train/",),
    "albumentations": ("datasets/",),
    "cv2": ("datasets/",),
    "segmentation_models_pytorch": ("models/", "train/"),
    "matplotlib": ("plots/",),
    "PIL": ("page/",),
    "triton": ("ops/_triton",),
    "numba": ("ops/_numba",),
    "llvmlite": ("ops/_numba",),
    "dask": ("predict/",),
}
TORCH_FREE = {
    "version",
    "errors",
    "memory",
    "progress",
    "files",
    "classes",
    "config",
    "settings",
    "page",
    "geo",
    "metrics",
}


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "use absolute imports"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_downwards(path):
    name, part = path.relative_to(PACKAGE).as_posix(), part_of(path)
    tree = ast.parse(path.read_text())
    for target in [target for node in ast.walk(tree) for target in imported(node)]:
        head, *rest = target.split(".")
        homes = HOMES.get(head)
        assert homes is None or name.startswith(homes), (
            f"{target} belongs in {homes}, not in {name}"
        )
        if head == "cvmh" and rest and part != "__init__":
            below = LEVELS[rest[0]] < LEVELS[part]
            beside = LEVELS[rest[0]] == LEVELS[part] == 0 or rest[0] == part
            assert below or beside, f"{name} must not import {target}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_the_light_parts_do_not_import_torch(path):
    eager = [target for node in ast.parse(path.read_text()).body for target in imported(node)]
    if part_of(path) in TORCH_FREE | {"__init__", "cli"}:
        assert not any(target.split(".")[0] == "torch" for target in eager)


def test_every_part_has_a_level():
    parts = {part_of(path) for path in FILES} - {"__init__"}
    assert parts == set(LEVELS)
