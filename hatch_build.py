"""The long description of a release: README, with links that work where only the metadata is shown.

An index shows README without the files around it, so a relative link leads nowhere there. With `home` and `files` (the
address of the project, and that of its files, `{version}` being the release) in `pyproject.toml`, links become
absolute and the metadata gets its Project-URLs. Without them each link becomes the name of the file, which the source
distribution holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|mailto:|#)([^)]+)\)")


class CustomMetadataHook(MetadataHookInterface):
    """Hatchling finds it by this name."""

    def update(self, metadata: dict[str, Any]) -> None:
        readme = (Path(self.root) / "README.md").read_text("utf-8")
        urls = project_urls(self.config, metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": for_an_index(readme, urls.get("Source"))}
        if urls:
            metadata["urls"] = urls


def project_urls(config: Mapping[str, Any], version: str) -> dict[str, str]:
    """The Project-URLs; none as long as the project has no address."""
    home, files = config.get("home"), config.get("files")
    if not home or not files:
        return {}
    source = str(files).format(version=version).rstrip("/")
    return {
        "Homepage": str(home),
        "Source": source,
        "Documentation": f"{source}/docs",
        "Changelog": f"{source}/CHANGELOG.md",
    }


def for_an_index(readme: str, source: str | None) -> str:
    """README without relative links."""

    def link(found: re.Match[str]) -> str:
        text, target = found.groups()
        if source is not None:
            return f"[{text}]({source}/{target})"
        return f"`{target}`" if text == target else f"{text} (`{target}`)"

    return RELATIVE_LINK.sub(link, readme)
