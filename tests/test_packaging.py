"""What is installed is what is in the tree: the links at the root neither hide nor add anything."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
PLUGIN = "_durably_pytest.py"
PACKAGED_EXAMPLES = "durably/cli/packaged/examples"


def files_under(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)


def expected_in_the_wheel() -> Mapping[str, bytes]:
    package = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in files_under(ROOT / "durably")}
    examples = {
        f"{PACKAGED_EXAMPLES}/{path.relative_to(ROOT / 'examples').as_posix()}": path.read_bytes()
        for path in files_under(ROOT / "examples")
        if path.suffix == ".py"
    }
    return package | examples | {PLUGIN: (ROOT / PLUGIN).read_bytes()}


def expected_in_the_sdist() -> set[str]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    listed: list[str] = config["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    files = {path.relative_to(ROOT).as_posix() for name in listed for path in files_under(ROOT / name)}
    return files | {name for name in listed if (ROOT / name).is_file()} | {"pyproject.toml", "PKG-INFO"}


def build(kind: str, source: Path, target: Path) -> Path:
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    archive = build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as tar:
        tar.extractall(unpacked, filter="data")
    (folder,) = unpacked.iterdir()
    return folder


@pytest.mark.slow
def test_the_source_distribution_holds_the_tree_and_no_links(sdist: Path) -> None:
    assert {path.relative_to(sdist).as_posix() for path in files_under(sdist)} == expected_in_the_sdist()
    assert not [path for path in sdist.rglob("*") if path.is_symlink()]


@pytest.mark.slow
def test_the_wheel_built_from_the_source_distribution_holds_the_package_and_the_examples(
    sdist: Path, tmp_path: Path
) -> None:
    with ZipFile(build("wheel", sdist, tmp_path)) as wheel:
        found = {name: wheel.read(name) for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == expected_in_the_wheel()


def test_the_links_at_the_root_lead_into_the_package() -> None:
    for name in ("actors", "runtime", "storage"):
        link = ROOT / name
        if link.is_symlink():  # a checkout on a system without links has small files instead
            assert link.resolve() == ROOT / "durably" / name
