"""The options by which a host is verified, for every command that does: files and words in, `Terms` out.

Every demand is stated. What must run (--measurement, --manifest, or a policy of one's own that names it) and
how many GPUs (--gpus, --no-gpus) have no default, for a host that leaves them open says little.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Timer
from typing import Any, NamedTuple

import click

from tinboot.cli import gpu_verify
from tinboot.cli import verify as report
from tinboot.cli.parameters import FILE, Hex, moment, read
from tinboot.client import Given, Origin, Terms, origin
from tinboot.client.cache import Cache, default_folder
from tinboot.client.evidence import SECONDS
from tinboot.client.kds import AMD, Kds
from tinboot.formats import gpuevidence, gpureference, launchmanifest
from tinboot.formats.errors import Malformed, Mismatch, TinbootError
from tinboot.formats.gpuevidence import ARCHITECTURES
from tinboot.formats.jsonfields import parse_object
from tinboot.verify import advisories, gpu_roots, policy, roots
from tinboot.verify.checks import Unchecked
from tinboot.verify.document import GpuDemands
from tinboot.verify.gpu_appraisal import Collateral
from tinboot.verify.gpu_policy import Policy as GpuPolicy
from tinboot.verify.policy import Policy

_MEASURED = 1 << 20  # bytes of what `tinboot measure --json` prints
_SLOW = 1.0  # seconds that a stage takes before anyone is told of it

Command = Callable[..., None]


class Options(NamedTuple):
    """As on the command line."""

    measurement: tuple[bytes, ...]
    manifest: tuple[Path, ...]
    vcpus: int | None
    policy_file: Path | None
    profile: str | None
    products: tuple[str, ...]
    gpus: int | None
    no_gpus: bool
    gpu_reference: tuple[Path, ...]
    gpu_architecture: str | None
    gpu_revocation: str
    gpu_ocsp: tuple[Path, ...]
    trust_gpu_root: Path | None
    vek: Path | None
    certs: Path | None
    chain: Path | None
    crl: Path | None
    trust_root: Path | None
    offline: bool
    kds: str
    cache: Path | None
    connect: str | None
    timeout: float
    at: datetime


_OPTIONS = (
    click.option(
        "--measurement", type=Hex(48), multiple=True, metavar="HEX", help="A launch digest it may have."
    ),
    click.option(
        "--manifest",
        type=FILE,
        multiple=True,
        metavar="FILE",
        help="Or of tinboot measure, --json or manifest.",
    ),
    click.option("--vcpus", type=click.IntRange(1, 4096), metavar="N", help="Of its counts, this one alone."),
    click.option("--policy", "policy_file", type=FILE, metavar="FILE", help="A policy of your own."),
    click.option("--profile", type=click.Choice(policy.PROFILES), help="A shipped one. Default: baseline."),
    click.option(
        "--allow-product", "products", type=click.Choice(["Milan", "Genoa", "Turin"]), multiple=True
    ),
    click.option(
        "--gpus", type=click.IntRange(1, gpuevidence.MAX_COUNT), metavar="N", help="How many it must have."
    ),
    click.option("--no-gpus", is_flag=True, help="It must have none."),
    click.option(
        "--gpu-reference-values",
        "gpu_reference",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="FILE|DIR",
        help="What GPUs' measurements must be: of tinboot gpu pin.",
    ),
    click.option(
        "--gpu-architecture", type=click.Choice(list(ARCHITECTURES.values())), help="What they must be."
    ),
    click.option(
        "--gpu-revocation",
        type=click.Choice(["ocsp", "relying-party"]),
        default="relying-party",
        show_default=True,
        help="Whether OCSP answers must be given.",
    ),
    click.option("--gpu-ocsp", type=FILE, multiple=True, metavar="FILE", help="An OCSP response, DER."),
    click.option(
        "--vek", type=FILE, metavar="CERT", help="The chip's (VCEK) or provider's (VLEK) certificate."
    ),
    click.option("--certs", type=FILE, metavar="TABLE", help="A certificate table, as the guest got it."),
    click.option("--chain", type=FILE, metavar="PEM", help="Issuers. Default: AMD's, which tinboot has."),
    click.option("--crl", type=FILE, metavar="CRL", help="AMD's revocation list for the product."),
    click.option("--offline", is_flag=True, help="Ask nobody but the host itself."),
    click.option(
        "--kds", metavar="URL", default=AMD, show_default=True, help="AMD's service for certificates."
    ),
    click.option(
        "--cache",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Where its answers are kept. Default: the user's cache.",
    ),
    click.option("--connect", metavar="ADDRESS:PORT", help="Where HOST is reached, if not there."),
    click.option(
        "--timeout",
        type=click.FloatRange(0.1, 3600),
        default=SECONDS,
        show_default=True,
        metavar="SECONDS",
        help="For all that is asked of HOST.",
    ),
    click.option("--at", metavar="RFC3339", callback=moment, help="The time to appraise for. Default: now."),
    click.option("--trust-root", type=FILE, metavar="CERT", help="TESTS ONLY: trust this root, too."),
    click.option("--trust-gpu-root", type=FILE, metavar="CERT", help="TESTS ONLY: and this one, of GPUs."),
)


def verification(command: Command) -> Command:
    """A decorator: the command takes `Options` first."""

    @functools.wraps(command)
    def called(**values: Any) -> None:
        own = Options(**{name: values.pop(name) for name in Options._fields})
        command(own, **values)

    for option in reversed(_OPTIONS):
        called = option(called)
    return called


def where(host: str, options: Options) -> Origin:
    try:
        return origin(host, options.connect)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def terms(options: Options, told: Callable[[str], None]) -> Terms:
    """Reads every file that is named. Raises UsageError for what is not said, and the files' errors."""
    wanted = _policy(options)
    gpus = _gpus(options)
    given = _given(options)
    kds = None
    if not options.offline:
        try:
            kds = Kds(options.kds, Cache(options.cache or default_folder()), options.at, told=told)
        except ValueError as error:
            raise click.UsageError(f"--kds: {error}") from None
    return Terms(wanted, advisories.shipped(), gpus, given, kds)


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Takes a line for each stage; those that last are shown on standard error."""
    running: list[Timer] = []

    def told(text: str) -> None:
        stop()
        timer = Timer(_SLOW, click.echo, (f"{text} …",), {"err": True})
        timer.daemon = True
        timer.start()
        running.append(timer)

    def stop() -> None:
        while running:
            running.pop().cancel()

    try:
        yield told
    finally:
        stop()


def _policy(options: Options) -> Policy:
    wanted = report.policy_of(options.policy_file, options.profile).allowing(*options.products)
    digests = [*options.measurement]
    for path in options.manifest:
        try:
            digests += _measured(read(path), options.vcpus)
        except TinbootError as error:
            raise type(error)(f"{path}: {error.message}", error.hint) from error
    if options.vcpus is not None and not options.manifest:
        raise click.UsageError("--vcpus goes with --manifest")
    if digests:
        return wanted.measuring(*digests)
    if isinstance(wanted.measurement, Unchecked):
        raise click.UsageError(
            "say what must run there: --manifest FILE (tinboot measure makes one) or --measurement HEX; "
            "tinboot inspect HOST shows what a host claims, and decides nothing"
        )
    return wanted


def _measured(data: bytes, vcpus: int | None) -> list[bytes]:
    """Launch digests of what `tinboot measure --json` printed, or of a launch manifest and a count."""
    fields = parse_object("manifest", data, _MEASURED)
    if not fields.has("digests"):
        manifest = launchmanifest.load(data)
        if vcpus is None:
            raise click.UsageError("a launch manifest has a digest for any number of vCPUs: say --vcpus N")
        return [manifest.launch_digest(vcpus)]
    stated, manifest = fields.record("digests"), launchmanifest.load(fields.opaque("manifest", _MEASURED))
    fields.end()
    found = []
    for name in stated.names:
        if not name.isascii() or not name.isdigit() or not 0 < len(name) <= 4 or not 1 <= int(name) <= 4096:
            raise Malformed(f"manifest.digests has {name[:20]!r}, expected a number of vCPUs")
        text, digest = stated.text(name), manifest.launch_digest(int(name))
        if text not in {digest.hex(), base64.b64encode(digest).decode()}:
            raise Mismatch(f"manifest.digests.{name} is {text}, the manifest beside it makes {digest.hex()}")
        if vcpus in {None, int(name)}:
            found.append(digest)
    if not found:
        raise click.UsageError(f"--vcpus {vcpus} is none of {json.dumps(stated.names)}")
    return found


def _gpus(options: Options) -> GpuDemands | None:
    named = (options.gpu_reference, options.gpu_ocsp, options.gpu_architecture, options.trust_gpu_root)
    if options.no_gpus == (options.gpus is not None):
        raise click.UsageError("say how many GPUs it must have: --gpus N, or --no-gpus")
    if options.no_gpus or options.gpus is None:
        if any(named):
            raise click.UsageError("--no-gpus goes with nothing about GPUs")
        return None
    if not options.gpu_reference:
        raise click.UsageError(
            "--gpus N goes with --gpu-reference-values FILE|DIR: make them with tinboot gpu pin"
        )
    reference = gpureference.merge(*(gpu_verify.reference_of(path) for path in options.gpu_reference))
    pinned: tuple[str, ...] = gpu_roots.NVIDIA
    if options.trust_gpu_root is not None:
        pinned = (*pinned, gpu_verify.trusted(options.trust_gpu_root))
    wanted = GpuPolicy(
        gpu_verify.architecture_of(options.gpu_architecture, "--gpu-architecture"),
        options.gpus,
        Unchecked("the document's own nonce takes this place"),
        gpu_verify.revocation_of(options.gpu_revocation, "--gpu-revocation ocsp with --gpu-ocsp FILE"),
    )
    return GpuDemands(Collateral(reference, tuple(read(path) for path in options.gpu_ocsp), pinned), wanted)


def _given(options: Options) -> Given:
    offered = [] if options.chain is None else [*report.certificates(options.chain)]
    pinned: tuple[roots.Root, ...] = roots.AMD
    if options.trust_root is not None:
        root = report.trusted(options.trust_root)
        pinned = (*pinned, roots.test_root(root))
        offered.insert(0, root)
    return Given(
        None if options.vek is None else report.one(options.vek),
        None if options.certs is None else report.table_of(options.certs),
        offered,
        None if options.crl is None else read(options.crl),
        pinned,
    )
