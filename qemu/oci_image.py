"""The container of the smoke workload, as an OCI image layout, and what it must answer.

mkosi builds it (examples/smoke/) from the locked packages and wheels, without a registry and, once those are
here, without a network. The host computes with the same code and wheels: `reference`.
`python3 qemu/oci_image.py` prints the layout's folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tinboot.builder import cache, mkosi_tool, output, places, prepare, recipe, wheels
from tinboot.builder.mkosi import Mkosi, Report
from tinboot.builder.stopping import stoppable
from tinboot.formats.errors import Malformed, TinbootError, Unavailable

#: What the config calls it; its digest is in the layout.
NAME = "localhost/tinboot-smoke"

#: In the container.
PORT = 8001
MODELS = "/models"

_EXAMPLE = places.REPOSITORY / "examples" / "smoke"
_LOCK = places.REPOSITORY / "packages" / "smoke.lock"
_DIST_PACKAGES = "usr/lib/python3/dist-packages"
_KEPT = 2

#: Of wheels, what no program reads: numpy's tests alone are a quarter of it.
_LEFT_OUT = ("/tests/", "/include/", ".pyi", ".pxd", ".a", ".c", ".h", ".dist-info/")

_REFERENCE = """
import json, sys
sys.path[:0] = sys.argv[1:3]
from embed import bert
encoder = bert.Encoder(sys.argv[3])
print(json.dumps([encoder.encode(text)[0].tolist() for text in json.load(sys.stdin)]))
"""


def entrypoint(model: str) -> list[str]:
    """For the config: the program that serves the model of that name."""
    return [f"/usr/bin/{recipe.PYTHON['debian']}", "-I", "-m", "embed", f"{MODELS}/{model}", str(PORT)]


def build(report: Report) -> Path:
    """The folder of the layout, from the cache in the build folder if it is there."""
    build = places.build_folder()
    mkosi = mkosi_tool.find_mkosi()
    final = build / f"smoke-image-{_digest(mkosi)}"
    with cache.alone(build / ".smoke-image.lock", report):
        if not final.exists():
            cache.prune(build, "smoke-image", _KEPT - 1)
            with output.scratch(final) as scratch:
                _build(mkosi, scratch, report)
                (scratch / "mkosi" / "smoke").replace(final)
        cache.used(final)
    return final


def reference(model: Path, texts: Sequence[str]) -> list[list[float]]:
    """The embeddings of `texts`, computed here by the container's own code with the model in that folder."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    final = places.build_folder() / f"smoke-python-{python}-{_file_digest(_LOCK)[:16]}"
    if not final.exists():
        with output.scratch(final) as scratch:
            _unpack(python, scratch / "site")
            (scratch / "site").replace(final)
    command = [sys.executable, "-I", "-c", _REFERENCE, str(final), str(_EXAMPLE), str(model)]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"the embeddings cannot be computed here: {done.stderr.strip()[-400:]}")
    found: list[list[float]] = json.loads(done.stdout)
    return found


def digest(layout: Path) -> str:
    """Of the one image in the layout."""
    manifests = json.loads((layout / "index.json").read_text("utf-8"))["manifests"]
    if len(manifests) != 1:
        raise Malformed(f"{layout} has {len(manifests)} images, expected one")
    return str(manifests[0]["digest"])


def _build(mkosi: Mkosi, scratch: Path, report: Report) -> None:
    def progress(name: str, done: int, of: int) -> None:
        report(f"{name}: {done} of {of}") if done == of else None

    tools = prepare.tree("tools", mkosi, report, progress)
    packages = prepare.locked_packages("debian", mkosi, report, progress)
    out = scratch / "mkosi"
    target = out / "payload" / _DIST_PACKAGES
    target.parent.mkdir(parents=True)
    _unpack(recipe.PYTHON["debian"].removeprefix("python"), target)
    shutil.copytree(_EXAMPLE / "embed", target / "embed", ignore=shutil.ignore_patterns("__pycache__"))
    (scratch / "cache").mkdir()
    options = [
        f"--directory={_EXAMPLE}",
        f"--build-sources={places.REPOSITORY}",
        f"--tools-tree={tools}",
        f"--package-directory={packages}",
        f"--package-cache-directory={scratch / 'cache'}",
        f"--output-directory={out}",
    ]
    log = places.build_folder() / "smoke-image.log"
    mkosi.build(options, sources="", scratch=scratch, log=log, network=False, report=report)


def _unpack(python: str, target: Path) -> None:
    """The wheels for that Python, but for what `_LEFT_OUT` says."""
    store = places.build_folder() / "packages" / "wheels"
    wanted = wheels.parse(str(_LOCK), _LOCK.read_text("utf-8"))
    for wheel in wheels.fetch(wanted, python, store, lambda _done, _of: None):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if not any(part in name if part.endswith("/") else name.endswith(part) for part in _LEFT_OUT):
                    archive.extract(name, target)


def _digest(mkosi: Mkosi) -> str:
    """Of all that the container is made from."""
    state = hashlib.sha256(mkosi.version.encode())
    sources = [
        path for path in sorted(_EXAMPLE.rglob("*")) if path.is_file() and "__pycache__" not in path.parts
    ]
    locks = [places.REPOSITORY / "packages" / f"{name}.lock" for name in ("debian", "tools", "smoke")]
    for path in [*sources, *locks, places.REPOSITORY / "tinboot/builder/inventory.py", Path(__file__)]:
        state.update(f"{path.relative_to(places.REPOSITORY)}\0{_file_digest(path)}\n".encode())
    return state.hexdigest()[:16]


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    try:
        with stoppable():
            print(build(lambda line: print(line, file=sys.stderr)))
    except TinbootError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
