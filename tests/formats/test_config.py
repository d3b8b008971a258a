"""What a config loads to: values, types, bounds, and what of Python it needs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tinboot.builder import wrap
from tinboot.formats import config_container, config_schema, config_values, launchspec, verity
from tinboot.formats.config import Config, load
from tinboot.formats.config_container import Healthcheck, Variable
from tinboot.formats.halt import Refusal

REPOSITORY = Path(__file__).parents[2]
WHOLE = re.findall(
    r"^```yaml\n(.*?)^```$", (REPOSITORY / "docs/config.md").read_text(encoding="utf-8"), re.M | re.S
)[-1]
ROOT_HASH = "ee92facce9c6f735d5e4b19cf32591a9457245ab6a1ed00882e8cb0017ba6510"
UUID = "0f98fbd8-f18a-5628-948d-11a952f8b391"
IMAGE = f"example.com/app@sha256:{'5' * 64}"


def refusal(text: str) -> str:
    with pytest.raises(Refusal) as refused:
        load(text.encode())
    return str(refused.value)


def machine(rest: str = "") -> str:
    """A config whose `rest` begins on line 3."""
    return f"cpus: 2\nmemory: 1024\n{rest}"


def model(name: str = "minilm", repo: str = "org/minilm@1", root_hash: str = ROOT_HASH) -> str:
    return f"  - {{name: {name}, repo: {repo}, mpk: {root_hash}_91627520_{UUID}}}\n"


def test_the_least() -> None:
    config = load(b"cpus: 1\nmemory: 64\n")
    assert (config.cpus, config.memory, config.gpus, config.models) == (1, 64, 0, ())
    assert config == Config(1, 64)


def test_a_model_is_what_opens_its_volume() -> None:
    (found,) = load(machine("models:\n" + model()).encode()).models
    assert (found.name, found.repo) == ("minilm", "org/minilm@1")
    assert found.volume == verity.VolumeRef(ROOT_HASH, 91627520, UUID)
    assert found.verity() == verity.Verity(ROOT_HASH, verity.salt_for("org/minilm@1"), 91627520 // 4096)


def test_mwp_is_mpk() -> None:
    text = machine("models:\n" + model())
    assert load(text.replace("mpk", "mwp").encode()) == load(text.encode())


def test_the_whole_example() -> None:
    config = load(WHOLE.encode())
    app = config.containers[0]
    assert config.gpu_policy == ("hopper", ("native", "nv-local-gpu-verifier"), "ocsp")
    assert config.networks == (("inside", ("closed", ())), ("updates", ("allowlist", ("files.example.com",))))
    assert config.volumes == (("work", True, 1000, (("minilm", "tokenizer", "share/tokenizer"),)),)
    assert app.env == (
        Variable("LOG_LEVEL", "info"),
        Variable("BANNER", "two\nlines\n"),
        Variable("DOMAIN", None),
    )
    assert app.healthcheck == Healthcheck(
        ("CMD", "curl", "-sf", "http://localhost:8001/health"), 30_000, 5_000, 5, 5_400_000
    )
    assert (app.cpus, app.memory, app.shm_size, app.ports) == (7500, 32 << 30, 8 << 30, ((2222, 22),))
    assert config.shim is not None
    assert (config.shim.upstream_port, config.shim.rate_limit) == (8001, 12_500)


def test_values_have_the_types_that_are_declared() -> None:
    """The schema's tables are read without static types; this holds them to the tuples' annotations."""
    seen: set[type] = set()
    pending: list[object] = [load(WHOLE.encode()), config_schema.CvmSource("a", "https://example.com")]
    foreign = {verity.VolumeRef}
    while pending:
        value = pending.pop()
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            seen.add(type(value))
            for name, hint in typing.get_type_hints(type(value)).items():
                assert conforms(getattr(value, name), hint), f"{type(value).__name__}.{name}"
        pending.extend(value if isinstance(value, tuple) else ())
    declared = {
        shape
        for module in (config_schema, config_container)
        for _, shape in inspect.getmembers(module, inspect.isclass)
        if hasattr(shape, "_fields") and shape.__module__ == module.__name__
    }
    assert declared == seen - foreign


def conforms(value: object, hint: object) -> bool:
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is tuple and isinstance(value, tuple):
        wanted = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        return len(wanted) == len(value) and all(map(conforms, value, wanted))
    if origin is not None:  # X | None
        return any(conforms(value, choice) for choice in arguments)
    return type(value) is hint


def test_the_launcher_takes_what_the_config_allows() -> None:
    assert config_container.MAX_CPUS == launchspec.MAX_VCPUS
    assert config_container.MAX_GPUS == launchspec.MAX_GPUS
    assert config_schema.MAX_MODELS == launchspec.MAX_VOLUMES
    assert (config_schema.MIN_MEMORY, config_schema.MAX_MEMORY) == (
        launchspec.MIN_MEMORY,
        launchspec.MAX_MEMORY,
    )


def test_24_models_and_64_containers_load() -> None:
    models = "".join(model(f"m{n}", root_hash=f"{n:064x}") for n in range(24))
    assert len(load(machine("models:\n" + models).encode()).models) == 24
    many = [f"  - {{name: c{n}, image: '{IMAGE}'}}\n" for n in range(65)]
    assert len(load(machine("containers:\n" + "".join(many[:64])).encode()).containers) == 64
    assert refusal(machine("containers:\n" + "".join(many))).endswith("65 entries, expected at most 64")


@given(st.text("aZ0./@_- +", max_size=8))
def test_takes_the_identities_that_wrap_makes(text: str) -> None:
    """Salt and UUID come from it, so `tinboot wrap` and the config have to mean the same."""
    try:
        wrap.check_identity(text)
    except ValueError:
        with pytest.raises(ValueError, match="name@revision"):
            config_values.identity(text)
    else:
        assert config_values.identity(text) == text


names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
repos = st.from_regex(r"[A-Za-z0-9]{1,9}(/[A-Za-z0-9._-]{0,9}[A-Za-z0-9])?@[0-9a-f]{1,40}", fullmatch=True)
models = st.fixed_dictionaries(
    {
        "name": names,
        "repo": repos,
        "mpk": st.builds(
            "{}_{}_{}".format,
            st.binary(min_size=32, max_size=32).map(bytes.hex),
            st.integers(1, 1 << 40).map(lambda blocks: blocks * 4096),
            st.uuids(),
        ),
    }
)


@given(
    st.integers(1, 255),
    st.integers(64, 1 << 20),
    st.integers(0, 8),
    st.lists(models, max_size=4),
    st.booleans(),
)
def test_gives_back_what_a_yaml_writer_was_given(
    cpus: int, memory: int, gpus: int, wanted: list[dict[str, str]], flow: bool
) -> None:
    """PyYAML's emitter decides on quotes, and where it quotes, the strict reader has a string."""
    distinct = {entry["name"]: entry for entry in wanted}
    distinct = {entry["mpk"][:64]: entry for entry in distinct.values()}
    data = {"cpus": cpus, "memory": memory, "gpus": gpus, "models": list(distinct.values())}
    text = yaml.safe_dump(data, default_flow_style=flow)
    try:
        config = load(text.encode())
    except Refusal as refused:
        assert " reads as " in refused.detail  # noqa: PT017 (stricter than YAML 1.1, and says so)
        return
    assert (config.cpus, config.memory, config.gpus) == (cpus, memory, gpus)
    told = [{"name": m.name, "repo": m.repo, "mpk": str(m.volume)} for m in config.models]
    assert told == data["models"]


def test_needs_five_modules_of_pyyaml_and_no_package(tmp_path: Path) -> None:
    """The initrd holds these five files and no `__init__`: no C extension, no resolver."""
    (tmp_path / "yaml").mkdir()
    for name in ("error", "events", "parser", "scanner", "tokens"):
        source = Path(inspect.getfile(yaml)).with_name(f"{name}.py")
        (tmp_path / "yaml" / f"{name}.py").write_bytes(source.read_bytes())
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import tinboot.formats.halt, tinboot.formats.verity, collections.abc\n"
        "before = set(sys.modules)\n"
        "from tinboot.formats.config import load\n"
        "load(sys.stdin.buffer.read())\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(tmp_path), str(REPOSITORY)],
        input=WHOLE.encode(),
        capture_output=True,
        check=True,
    )
    imported = [name for name in done.stdout.decode().split() if not name.startswith("tinboot.")]
    assert imported == ["yaml", "yaml.error", "yaml.events", "yaml.parser", "yaml.scanner", "yaml.tokens"]
