"""`tinboot gpu verify`: appraises the evidence of GPUs; nothing is fetched, everything comes from files."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeVar

import click

from tinboot.cli.parameters import FILE, FILE_OR_STDIN, Hex, moment, read
from tinboot.cli.verdicts import show, wrapped
from tinboot.formats import gpuevidence, gpureference
from tinboot.formats.errors import TinbootError, Unavailable
from tinboot.formats.gpuevidence import ARCHITECTURES
from tinboot.formats.gpureference import ReferenceValues
from tinboot.verify import gpu_appraisal, gpu_claims, gpu_result, gpu_roots
from tinboot.verify.checks import Unchecked
from tinboot.verify.gpu_appraisal import Appraisal, Appraisals, Collateral
from tinboot.verify.gpu_policy import Policy

VALUES = "reference-values.json"  # in a folder that `tinboot gpu pin` made

T = TypeVar("T")


@click.command("verify")
@click.argument("evidence", type=FILE_OR_STDIN)
@click.option(
    "--reference-values",
    "reference",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    metavar="FILE|DIR",
    help="What measurements must be: of tinboot gpu pin. May be given again.",
)
@click.option("--nonce", type=Hex(32), metavar="HEX", help="The nonce that every GPU was asked with.")
@click.option("--at", metavar="RFC3339", callback=moment, help="The time to appraise for. Default: now.")
@click.option("--architecture", type=click.Choice(list(ARCHITECTURES.values())), help="What they must be.")
@click.option("--count", type=click.IntRange(1, gpuevidence.MAX_COUNT), metavar="N", help="How many.")
@click.option(
    "--revocation",
    type=click.Choice(["ocsp", "relying-party"]),
    default="relying-party",
    show_default=True,
    help="Whether OCSP answers must be given.",
)
@click.option(
    "--ocsp", type=FILE, multiple=True, metavar="FILE", help="An OCSP response, DER. May be given again."
)
@click.option("--trust-root", type=FILE, metavar="CERT", help="TESTS ONLY: trust this device root, too.")
@click.option("--json", "as_json", is_flag=True, help="Print every check and claim as JSON.")
@click.option("--claims", "as_claims", is_flag=True, help="Print claims in NVIDIA's names, as JSON.")
def command(
    evidence: Path,
    reference: tuple[Path, ...],
    nonce: bytes | None,
    at: datetime,
    architecture: str | None,
    count: int | None,
    revocation: str,
    ocsp: tuple[Path, ...],
    trust_root: Path | None,
    as_json: bool,
    as_claims: bool,
) -> None:
    """Appraise EVIDENCE of NVIDIA's GPUs: the JSON that the guest keeps, or NVIDIA's SDK writes; `-` is
    standard input.

    Without --nonce the result says only that genuine GPUs made the reports at some time.

    Exit codes: 0 accepted, 3 malformed, 4 signature or endorsement, 5 against the policy, 6 cannot tell.
    """
    if as_json and as_claims:
        raise click.UsageError("give --json or --claims, not both")
    items = _within(evidence, lambda: gpuevidence.parse(read(evidence)))
    values = gpureference.merge(*(reference_of(path) for path in reference))
    pinned = gpu_roots.NVIDIA if trust_root is None else (*gpu_roots.NVIDIA, trusted(trust_root))
    policy = Policy(
        architecture_of(architecture, "--architecture"),
        Unchecked("no --count was given") if count is None else count,
        Unchecked("no --nonce was given: the reports may be of any time") if nonce is None else nonce,
        revocation_of(revocation, "--revocation ocsp with --ocsp FILE"),
    )
    collateral = Collateral(values, tuple(read(path) for path in ocsp), pinned)
    result = gpu_appraisal.appraise_all(items, collateral, policy, at)
    if as_json:
        click.echo(json.dumps(gpu_result.fields(result), indent=2))
    elif as_claims:
        click.echo(json.dumps([*gpu_claims.platform(result)], indent=2))
    else:
        _show(result)
    result.accept()


def _within(path: Path, act: Callable[[], T]) -> T:
    """An error names the file."""
    try:
        return act()
    except Unavailable:
        raise
    except TinbootError as error:
        raise type(error)(f"{path}: {error.message}", error.hint) from error


def architecture_of(name: str | None, option: str) -> str | Unchecked:
    """The evidence's word for the option's."""
    if name is None:
        return Unchecked(f"no {option} was given")
    return next(word for word, known in ARCHITECTURES.items() if known == name)


def revocation_of(word: str, option: str) -> Literal["ocsp"] | Unchecked:
    return "ocsp" if word == "ocsp" else Unchecked(f"no OCSP answers are demanded; {option} does")


def reference_of(path: Path) -> ReferenceValues:
    """Of a file, or of a folder that `tinboot gpu pin` made."""
    file = path / VALUES if path.is_dir() else path
    if not file.exists():
        raise Unavailable(f"{file}: there are no reference values", "make them: tinboot gpu pin")
    return _within(file, lambda: gpureference.parse(read(file)))


def trusted(path: Path) -> str:
    """A root's fingerprint, with a warning where it is not NVIDIA's."""
    root = _within(path, lambda: gpu_roots.one_root(read(path)))
    if not gpu_roots.is_nvidias(root.fingerprint):
        name = root.common_name
        click.echo(f"WARNING: trusting the root {name!r} of {path}, which is not NVIDIA's", err=True)
    return root.fingerprint


def _show(result: Appraisals) -> None:
    show_gpus(result)
    if (failure := result.failure) is not None:
        click.echo(f"{click.style('refused', fg='red', bold=True)} with exit code {failure.exit_code}")
        return
    word = click.style("accepted", fg="green", bold=True)
    made = result.collateral.reference.created
    many = "1 GPU" if len(result.gpus) == 1 else f"{len(result.gpus)} GPUs"
    click.echo(f"{word}: {many}, by reference values of {made:%Y-%m-%d}")
    say_whose(result)


def say_whose(result: Appraisals, *, err: bool = False) -> None:
    """A line where a root is not NVIDIA's."""
    if not all(gpu.endorsement and gpu_roots.is_nvidias(gpu.endorsement.root) for gpu in result.gpus):
        click.echo("but by a TEST ROOT: nothing of this says that there is a GPU of NVIDIA's", err=err)


def show_gpus(result: Appraisals) -> None:
    """Each GPU's checks and what it is, then what concerns them all; 80 columns wide."""
    refused = "" if result.failure is None else ", NOT VERIFIED"
    for number, gpu in enumerate(result.gpus):
        click.echo(wrapped(f"GPU {number}: {_named(gpu)}{refused}"))
        show(gpu.verdicts)
    click.echo("all GPUs:")
    show(result.verdicts)


def _named(gpu: Appraisal) -> str:
    claims = gpu_result.claims(gpu)
    parts = [str(claims.get("hwmodel", gpu.evidence.arch))]
    parts += [
        f"{name} {claims[key]}" for name, key in (("driver", "driver"), ("VBIOS", "vbios")) if key in claims
    ]
    parts += [f"serial number {claims['ueid']}"] if "ueid" in claims else []
    return ", ".join(parts)
