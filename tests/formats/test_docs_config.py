"""docs/config.md says what the schema says, and its examples load."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tinboot.formats import config_container, config_schema, config_values, halt, yamlevents, yamlstrict
from tinboot.formats.config import load
from tinboot.formats.config_readers import Section

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/config.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)
SECTIONS: dict[str, Section[Any]] = {
    "tinboot.yml": config_schema.CONFIG,
    "gpu-policy": config_schema.GPU_POLICY,
    "models[]": config_schema.MODEL,
    "images[]": config_schema.IMAGE,
    "volumes[]": config_schema.VOLUME,
    "volumes[].overlays[]": config_schema.OVERLAY,
    "networks.<name>": config_schema.NETWORK,
    "containers[]": config_container.CONTAINER,
    "containers[].healthcheck": config_container.HEALTHCHECK,
    "shim": config_schema.SHIM,
    "cvm-network": config_schema.CVM_NETWORK,
    "cvm-source": config_schema.CVM_SOURCE,
    "attested-keys[]": config_schema.KEY,
}


def chapter(title: str) -> str:
    found = re.search(rf"^## `{re.escape(title)}`\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert found, f"docs/config.md has no section `{title}`"
    return found[1]


def rows(text: str, columns: int) -> list[list[str]]:
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines()]
    return [row for row in cells if len(row) == columns and row[0].startswith("`")]


def default(section: Section[Any], key: str) -> str:
    """As the tables have it."""
    field = section.fields[key]
    if field not in section.shape._field_defaults:
        return "required"
    value = section.shape._field_defaults[field]
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "see below" if isinstance(value, tuple) else f"`{value}`"


def test_every_section_has_a_chapter() -> None:
    modules = (config_schema, config_container)
    declared = [value for module in modules for value in vars(module).values() if isinstance(value, Section)]
    assert {id(section) for section in declared} == {id(section) for section in SECTIONS.values()}


@pytest.mark.parametrize("title", SECTIONS)
def test_lists_the_keys_with_their_defaults_in_the_schemas_order(title: str) -> None:
    section = SECTIONS[title]
    table = [(key.strip("`"), standing) for key, standing, _ in rows(chapter(title), 3)]
    assert table == [(key, default(section, key)) for key in section.keys]


@pytest.mark.parametrize("title", SECTIONS)
def test_lists_what_is_refused_by_name(title: str) -> None:
    table = {key.strip("`"): reason for key, reason in rows(chapter(title), 2)}
    assert table == SECTIONS[title].refused


def test_says_what_other_readers_see() -> None:
    file_chapter = PAGE.split("\n## The file\n")[1].split("\n## ")[0]
    table = file_chapter.split("| plain | other readers see |")[1].split("\n\n")[0]
    shown = [(text, meaning) for plain, meaning in rows(table, 2) for text in re.findall("`([^`]+)`", plain)]
    assert len(shown) > 15
    assert shown == [(text, yamlstrict.reads_as(text) or "a string") for text, _ in shown]


def test_bounds() -> None:
    assert f"at most {yamlstrict.NODES} nodes (keys count), nested at most {yamlevents.DEPTH} deep" in PAGE
    assert f"at\n  most {yamlstrict.KEY_LENGTH} characters" in PAGE
    assert f"`cpus` | required | number, 1 to {config_container.MAX_CPUS}" in PAGE
    assert f"number, {config_schema.MIN_MEMORY} to {config_schema.MAX_MEMORY}: MiB" in PAGE
    assert f"`gpus` | `0` | number, 0 to {config_container.MAX_GPUS}" in PAGE
    bounds = {
        "models": config_schema.MAX_MODELS,
        "containers": config_schema.MAX_CONTAINERS,
        "networks": config_schema.MAX_NETWORKS,
        "attested-keys": config_schema.MAX_KEYS,
    }
    for section, most in bounds.items():
        assert re.search(rf"^\| `{section}` \| - \| (list|mapping) of at most {most}\b", PAGE, re.M), section
    for capability in config_container.CAPABILITIES:
        assert f"`{capability}`" in chapter("containers[]")
    policy = config_schema.Config(1, 64).gpu_policy
    assert f"`{policy.architecture}`, `[{', '.join(policy.verifiers)}]`, `{policy.revocation}`" in PAGE


def test_names_every_reason() -> None:
    for reason in ("too-large", "not-utf8", "too-complex", "malformed", "unknown-key", "invalid"):
        assert f"config-{reason}" in halt.REASONS
        assert f"`config-{reason}`" in PAGE


def test_the_whole_example_uses_every_kind_of_value() -> None:
    config = load(BLOCKS[-1].encode())
    container = config.containers[0]
    for field, fallback in container._field_defaults.items():
        assert getattr(container, field) != fallback, field
    assert config_values.size("8g") == container.shm_size
    assert config.volumes[0].overlays[0].model == config.models[0].name


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_yaml_on_the_page_loads(number: int) -> None:
    assert load(BLOCKS[number].encode()).cpus > 0


@pytest.mark.parametrize("path", sorted((REPOSITORY / "examples").glob("*.yml")), ids=lambda path: path.name)
def test_examples_load(path: Path) -> None:
    assert load(path.read_bytes()).gpus == {"minimal.yml": 0, "smoke.yml": 2}[path.name]


def test_the_minimal_example_is_the_one_on_the_page() -> None:
    example = (REPOSITORY / "examples/minimal.yml").read_bytes()
    assert load(example) == load(BLOCKS[0].encode())


def test_the_error_on_the_page_is_what_is_said() -> None:
    bad = b"cpus: 1\nmemory: 64\n\n\n\n\ncontainers:\n  - name: app\n    image: app:latest\n"
    with pytest.raises(halt.Refusal) as refused:
        load(bad)
    quoted = re.search(r"^    (config-invalid: .*?)\n\n", PAGE, re.M | re.S)
    assert quoted
    assert str(refused.value) == " ".join(quoted[1].split())
