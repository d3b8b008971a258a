"""docs/client.md is held to the code: every check, option and exit code that it names."""

from __future__ import annotations

import re
from pathlib import Path

from tinboot import client
from tinboot.cli import inspect, request, verify_host
from tinboot.client import certificate
from tinboot.formats import attestationdocument, jsonfields
from tinboot.verify import (
    binding,
    chain,
    document_binding,
    gpu_appraisal,
    gpu_binding,
    gpu_platform,
    platform,
)

PAGE = (Path(__file__).parents[2] / "docs/client.md").read_text("utf-8")


def test_the_three_checks_stand_there() -> None:
    table = PAGE.partition("| check | what it asks |")[2].partition("\n\n")[0]
    shown = re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", table, re.MULTILINE)
    assert shown == [(check.id, check.meaning) for check in certificate.CHECKS]


def test_what_decides_is_a_check() -> None:
    table = PAGE.partition("| what | decided by | exit code |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([a-z-]+)`", table))
    lists = (binding, chain, platform, gpu_binding, gpu_platform, gpu_appraisal, certificate)
    known = {check.id for module in lists for check in module.CHECKS}
    known |= {check.id for check in document_binding.CHECKS_V3}
    assert len(named) > 10
    assert named <= known


def test_every_option_is_there_and_no_other() -> None:
    options = {option for param in verify_host.command.params for option in param.opts}
    options -= {"host"}
    named = set(re.findall(r"`(--[a-z-]+)", PAGE.partition("## Options")[2].partition("## AMD")[0]))
    assert named == options
    others = {
        option for command in (request, inspect) for param in command.command.params for option in param.opts
    }
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE)) <= options | others


def test_options_of_request_are_there() -> None:
    section = PAGE.partition("## request")[2].partition("## inspect")[0]
    own = {param.opts[0] for param in request.command.params} - {
        param.opts[0] for param in verify_host.command.params
    }
    assert {option for option in own if option.startswith("-")} == set(
        re.findall(r"`(-[Xd Hi]|--ehbp)`", section)
    )


def test_the_bounds_are_the_codes() -> None:
    assert attestationdocument.MAX_V3 == 4 << 20
    assert f"{attestationdocument.MAX_V3 >> 20} MiB" in PAGE
    assert f"nested deeper than {jsonfields.MAX_DEPTH}," in PAGE


def test_names_of_the_library_exist() -> None:
    code = PAGE.partition("```python")[2].partition("```")[0]
    names = re.findall(r"client\.([A-Za-z_]+)\(", code)
    assert set(names) == {"Terms", "verify", "origin"}
    assert all(hasattr(client, name) for name in names)
    assert all(hasattr(client.Verified, name) for name in re.findall(r"host\.([a-z_]+)", code))
