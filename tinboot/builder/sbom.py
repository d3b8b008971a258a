"""The software bill of materials beside each image: CycloneDX, by debsbom, from dpkg's own status file."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from tinboot.builder.recipe import Recipe
from tinboot.formats.errors import Unavailable


def write(status: Path, output: Path, recipe: Recipe, image: str) -> None:
    """`status`: the image's /var/lib/dpkg/status. The document is a function of it: fixed time and serial."""
    name = f"tinboot-{recipe.name}-{image}"
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "root/var/lib/dpkg"
        database.mkdir(parents=True)
        (database / "status").write_bytes(status.read_bytes())
        result = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "debsbom.cli", "generate", "--sbom-type", "cdx"),
                *("--root", f"{folder}/root", "--out", f"{folder}/sbom"),
                *(
                    "--distro-name",
                    name,
                    "--base-distro-vendor",
                    recipe.distribution,
                    "--distro-arch",
                    "amd64",
                ),
                *("--cdx-serialnumber", str(uuid5(NAMESPACE_URL, name))),
                *("--timestamp", "2025-09-03T00:00:00+00:00"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        made = Path(folder) / "sbom.cdx.json"
        if result.returncode or not made.exists():
            raise Unavailable(f"debsbom made no SBOM of {image}: {result.stderr.strip()[-400:]}")
        output.write_bytes(made.read_bytes())
