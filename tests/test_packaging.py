"""What is installed is what is in the tree: the links at the root neither hide nor add anything."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
OUTSIDE_THE_PACKAGE = ("_durably_command.py", "_durably_pytest.py")
PACKAGED_EXAMPLES = "durably/cli/packaged/examples"


def files_under(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)


def expected_in_the_wheel() -> Mapping[str, bytes]:
    package = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in files_under(ROOT / "durably")}
    examples = {
        f"{PACKAGED_EXAMPLES}/{path.relative_to(ROOT / 'examples').as_posix()}": path.read_bytes()
        for path in files_under(ROOT / "examples")
        if path.suffix in (".py", ".rst", ".html")
    }
    return package | examples | {name: (ROOT / name).read_bytes() for name in OUTSIDE_THE_PACKAGE}


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


EXTRAS_IN_THE_WHEEL = ("http", "cli", "testing")
LOADED_BY = {"pyyaml": "msgspec"}
"""Requirements that are for another one, which loads them where it finds them."""


def requirements(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines: list[str] = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return {re.split(r"[\[<>=; ]", line)[0] for line in lines}


def test_what_is_required_is_imported() -> None:
    code = "\n".join(path.read_text("utf-8") for path in files_under(ROOT / "durably") if path.suffix == ".py")
    code += "".join((ROOT / name).read_text("utf-8") for name in OUTSIDE_THE_PACKAGE)
    required = requirements(*EXTRAS_IN_THE_WHEEL)
    imported = {
        name
        for name in required
        if re.search(rf'^ *(import|from) {name}\b|import_module\("{name}"\)', code, re.MULTILINE)
    }
    assert required - imported == set(LOADED_BY)
    assert set(LOADED_BY.values()) <= imported
    assert "uvloop" not in requirements(), "a Runtime runs on any event loop"


def metadata_with(config: Mapping[str, str]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"version": "1.2.3"}
    hook = hatch_build()
    hook.CustomMetadataHook(str(ROOT), dict(config)).update(metadata)
    return metadata


def hatch_build() -> Any:
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_index_shows_no_link_that_leads_nowhere() -> None:
    metadata = metadata_with({})
    assert "urls" not in metadata
    text: str = metadata["readme"]["text"]
    assert "](http" not in text.replace("](https", "]"), "a link is absolute and encrypted, or none"
    assert not re.findall(r"\]\((?!https:)", text)
    assert "`docs/architecture.md`" in text


def test_once_the_project_has_an_address_links_are_absolute_and_it_is_told() -> None:
    metadata = metadata_with({"home": "https://durably.example", "files": "https://durably.example/v{version}/"})
    text: str = metadata["readme"]["text"]
    assert "[docs/architecture.md](https://durably.example/v1.2.3/docs/architecture.md)" in text
    assert not re.findall(r"\]\((?!https:)", text)
    assert metadata["urls"] == {
        "Homepage": "https://durably.example",
        "Source": "https://durably.example/v1.2.3",
        "Documentation": "https://durably.example/v1.2.3/docs",
        "Changelog": "https://durably.example/v1.2.3/CHANGELOG.md",
    }


def test_the_links_at_the_root_lead_into_the_package() -> None:
    for name in ("actors", "runtime", "storage"):
        link = ROOT / name
        if link.is_symlink():  # a checkout on a system without links has small files instead
            assert link.resolve() == ROOT / "durably" / name
