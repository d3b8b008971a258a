"""Zones: who may import whom. The folders are the trust boundaries, and this table is what makes them so.

Read from the syntax tree of every file, so that imports inside functions and under TYPE_CHECKING count.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

#: What bytes <-> values needs of the standard library: no I/O, no clock, no randomness.
PURE = frozenset(
    {"__future__", "base64", "binascii", "collections", "datetime", "enum", "hashlib", "json", "re", "stat"}
    | {"struct", "typing"}
    | {"zlib"}  # decompresses in memory, to a bound: the v2 attestation document is gzip
)
#: Of datetime's types: what asks for the time.
CLOCKS = frozenset({"now", "today", "utcnow"})
#: An appraisal may not fetch, start, read or ask the time: evidence, endorsements and now come from outside.
IMPURE = frozenset(
    {"asyncio", "http", "os", "pathlib", "random", "secrets", "shutil", "socket", "ssl", "subprocess"}
    | {"tempfile", "threading", "time", "urllib"}
)


@dataclass(frozen=True)
class Zone:
    """`may_import`: zones; `third_party`, `standard`: top-level modules, None for the whole library."""

    folder: str
    may_import: frozenset[str]
    third_party: frozenset[str] = frozenset()
    standard: frozenset[str] | None = None


def zone(
    folder: str, may_import: str = "", third_party: str = "", standard: frozenset[str] | None = None
) -> Zone:
    return Zone(folder, frozenset(may_import.split()), frozenset(third_party.split()), standard)


ZONES = {
    "hooks": zone("initrd-hooks", "formats"),
    "formats": zone("tinboot/formats", "", "", PURE),
    "verify": zone("tinboot/verify", "formats", "cryptography", sys.stdlib_module_names - IMPURE),
    "ehbp": zone("tinboot/ehbp", "formats", "cryptography", PURE),
    "guest": zone("tinboot/guest", "formats verify ehbp", "cryptography pynvml"),
    "builder": zone("tinboot/builder", "formats", "cryptography jinja2 lxml signxml yaml sigstore debsbom"),
    "host": zone("tinboot/host", "formats"),
    "client": zone("tinboot/client", "formats verify ehbp", "httpx httpcore cryptography"),
    "services": zone("tinboot/services", "formats verify client", "starlette uvicorn httpx"),
    "cli": zone("tinboot/cli", "formats verify builder host client services", "click rich"),
    # test hooks, which run beside the production's; no third party, but what the runner is made of
    "stubs": zone("qemu/stubs", "formats", "stage stubs"),
    # the harness drives the host's side and stands outside of what ships
    "harness": zone("qemu", "formats builder host cli", "click cryptography lxml rich pytest"),
}

#: file -> third-party modules that this file alone may import beyond its zone.
ALONE = {
    "tinboot/formats/yamlevents.py": {"yaml"},
    "tinboot/formats/yamlstrict.py": {"yaml"},
    "tinboot/guest/nv_child.py": {"OpenSSL", "verifier"},
}

#: Of cryptography, what is alike in every version that an image has: 41.0 of Ubuntu 24.04, 43.0 of Debian 13.
#: Its certificates and OCSP responses are not: their times with a zone came with 42.0 and 43.0.
STEADY = ("cryptography.exceptions", "cryptography.hazmat.primitives.")

#: Programs that are started by their path, with other packages than ours: nothing may import them.
PROGRAMS = frozenset({"nv_child"})

#: Load by name: commands, from a table in the file; the hooks, from the initrd; the gate, from the root.
LOADERS = frozenset(
    {"tinboot/cli/main.py", "initrd-hooks/stage/worker.py", "initrd-hooks/stage/rootprogram.py"}
)


def sources() -> list[Path]:
    found = [path for top in ("tinboot", "qemu", "initrd-hooks") for path in (REPOSITORY / top).rglob("*")]
    return sorted(path for path in found if path.is_file() and (path.suffix == ".py" or _is_hook(path)))


def _is_hook(path: Path) -> bool:
    return path.parent == REPOSITORY / "initrd-hooks" and "." not in path.name


def zone_of(path: str) -> str | None:
    return next((name for name, zone in ZONES.items() if path.startswith(zone.folder + "/")), None)


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Each imported module with its line; of `from tinboot import a` that is tinboot.a, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")
            for alias in node.names if node.module == "tinboot" else ():
                yield node.lineno, f"tinboot.{alias.name}"


def violations(path: str, source: str) -> Iterator[str]:
    """What `source`, at `path` in the repository, may not do."""
    name = zone_of(path)
    if name is None:
        if path != "tinboot/__init__.py" or any(imports(ast.parse(source))):
            yield f"{path}: in no zone of tests/test_zones.py"
        return
    own = ZONES[name]
    tree = ast.parse(source)
    local = (
        {file.stem for file in (REPOSITORY / own.folder).glob("*")} if name in {"hooks", "harness"} else set()
    )
    for line, module in imports(tree):
        where = f"{path}:{line}: {name} imports {module}"
        top = module.partition(".")[0]
        if module.startswith("."):
            yield f"{where}: write the whole name"
        elif top == "tinboot":
            other = zone_of(module.replace(".", "/") + "/")
            if module != "tinboot" and other != name and other not in own.may_import:
                yield f"{where}: it may import {', '.join(sorted(own.may_import)) or 'no other zone'}"
        elif top in local:
            pass
        elif top in sys.stdlib_module_names:
            if own.standard is not None and top not in own.standard:
                yield f"{where}: not of the standard library that this zone may use"
        elif top not in own.third_party and top not in ALONE.get(path, ()):
            yield f"{where}: third party; it may use {', '.join(sorted(own.third_party)) or 'none'}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and path not in LOADERS:
            called = (
                node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            )
            if called in {"import_module", "__import__", "exec", "eval"}:
                yield f"{path}:{node.lineno}: {called} hides what is imported"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_imports(path: Path) -> None:
    assert list(violations(path.relative_to(REPOSITORY).as_posix(), path.read_text("utf-8"))) == []


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_programs_are_not_imported(path: Path) -> None:
    imported = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if _is_import(node)]
    assert not PROGRAMS & {name for node in imported for name in re.findall(r"\w+", ast.unparse(node))}


def _is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def test_every_package_is_a_zone() -> None:
    packages = {f"tinboot/{path.parent.name}" for path in (REPOSITORY / "tinboot").glob("*/*.py")}
    assert packages <= {zone.folder for zone in ZONES.values()}


def newer(path: str, source: str) -> list[str]:
    """What code in an image takes of cryptography that an older one has not, or has otherwise."""
    if zone_of(path) not in {"verify", "ehbp", "guest"} or path in ALONE:
        return []
    found = [module + "." for _, module in imports(ast.parse(source))]
    return [m for m in found if m.startswith("cryptography.") and not m.startswith(STEADY)] + [
        word for word in ("deterministic_signing",) if word in source
    ]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_any_images_cryptography_will_do(path: Path) -> None:
    assert newer(path.relative_to(REPOSITORY).as_posix(), path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "from cryptography import x509",
        "import cryptography.x509",
        "def f() -> None:\n    from cryptography.x509 import ocsp",
        "key.sign(data, ec.ECDSA(hash, deterministic_signing=True))",
    ],
)
def test_newer_cryptography_is_seen(source: str) -> None:
    assert newer("tinboot/verify/x.py", source)
    assert newer("tinboot/guest/x.py", source)
    assert newer("tinboot/ehbp/x.py", source)
    assert not newer("tinboot/builder/x.py", source)
    assert not newer("tinboot/guest/nv_child.py", source)
    assert not newer("tinboot/verify/x.py", "from cryptography.hazmat.primitives.asymmetric import ec")


def test_exceptions_are_used() -> None:
    for path, modules in ALONE.items():
        tree = ast.parse((REPOSITORY / path).read_text("utf-8"))
        assert modules <= {found.partition(".")[0] for _, found in imports(tree)}, path


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("tinboot/formats/x.py", "from tinboot.builder import lockfile"),
        ("tinboot/formats/x.py", "import time"),
        ("tinboot/formats/x.py", "import yaml"),
        ("tinboot/verify/x.py", "import socket"),
        ("tinboot/verify/x.py", "def f() -> None:\n    from tinboot import host"),
        ("tinboot/ehbp/x.py", "import os"),
        ("tinboot/ehbp/x.py", "from tinboot.verify import roots"),
        ("tinboot/builder/x.py", "from tinboot import host"),
        ("tinboot/builder/x.py", "import tinboot.cli.main"),
        ("tinboot/host/x.py", "import click"),
        ("tinboot/cli/x.py", "from tinboot.guest import status"),
        ("tinboot/cli/x.py", "import cryptography.x509"),
        ("tinboot/guest/x.py", "from tinboot.builder.inventory import keep"),
        ("tinboot/guest/x.py", "import verifier.cc_admin"),
        ("tinboot/client/x.py", "if TYPE_CHECKING:\n    import requests"),
        ("tinboot/host/x.py", "from . import launch"),
        ("tinboot/host/x.py", "import importlib\nimportlib.import_module('tinboot.cli')"),
        ("tinboot/host/x.py", "__import__('click')"),
        ("tinboot/elsewhere/x.py", ""),
        ("tinboot/x.py", ""),
        ("tinboot/__init__.py", "import os"),
        ("initrd-hooks/10-config", "import yaml"),
        ("initrd-hooks/10-config", "from tinboot.verify import snp"),
        ("initrd-hooks/stage/x.py", "import cryptography"),
        ("qemu/x.py", "from tinboot.guest import status"),
        ("qemu/stubs/x.py", "import psp"),
    ],
)
def test_each_rule_can_fail(path: str, source: str) -> None:
    assert len(list(violations(path, source))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("tinboot/formats/yamlstrict.py", "from yaml.events import Event"),
        ("tinboot/verify/x.py", "from cryptography import x509\nfrom tinboot.formats.errors import Refused"),
        ("tinboot/cli/x.py", "import click\nfrom tinboot.builder import archive\nimport tinboot.host.launch"),
        ("initrd-hooks/20-root", "from stage import disks\nfrom tinboot.formats import verity"),
        ("qemu/x.py", "import qmp\nfrom tinboot.host import launch"),
    ],
)
def test_each_rule_can_pass(path: str, source: str) -> None:
    assert list(violations(path, source)) == []


@pytest.mark.parametrize("name", ["formats", "verify", "ehbp"])
def test_time_comes_from_outside(name: str) -> None:
    for path in sorted((REPOSITORY / ZONES[name].folder).rglob("*.py")):
        asked = {node.attr for node in ast.walk(ast.parse(path.read_text("utf-8"))) if is_clock(node)}
        assert not asked, path


def is_clock(node: ast.AST) -> TypeGuard[ast.Attribute]:
    """`datetime.now` and the like; not the field `now` of some value."""
    return (
        isinstance(node, ast.Attribute)
        and node.attr in CLOCKS
        and ast.unparse(node.value) in {"datetime", "date", "datetime.datetime", "datetime.date"}
    )
