"""`tinboot build`: from a config to everything that a launch needs."""

from __future__ import annotations

from pathlib import Path

import click

from tinboot.builder import assemble, driver, gpu_reference, image, places, prepare, recipe
from tinboot.cli.progress import progress
from tinboot.cli.setup import default_distribution, distribution_option
from tinboot.formats.errors import Refused
from tinboot.formats.manifest import REFERENCE_VALUES, Manifest


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder of the build.  [default: NAME.build]"
)
@distribution_option
@click.option(
    "--profile",
    type=click.Choice(recipe.PROFILES),
    default="release",
    show_default=True,
    help="`debug` is another image, with a root shell on its console.",
)
@click.option(
    "--gpu-reference-values",
    "reference",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="What the image's GPU gate verifies by: the folder that `tinboot gpu pin` made.",
)
@click.option(
    "--without-gpu-reference-values",
    "without",
    is_flag=True,
    help="For a config with GPUs: an image that refuses every GPU, as the harness builds it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest instead of a summary.")
def command(
    config: Path,
    output: Path | None,
    distribution: str | None,
    profile: str,
    reference: Path | None,
    without: bool,
    as_json: bool,
) -> None:
    """Build kernel, initrd, root and command line for CONFIG.

    The image comes from locked packages and is kept: a second config costs a second. The folder that is
    written has all that `tinboot launch` takes. An image with reference values for GPUs is another image, and
    serves machines without GPUs as well.
    """
    if reference is not None and without:
        raise click.UsageError("--gpu-reference-values and --without-gpu-reference-values are opposites")
    _, parsed = assemble.read_config(config)  # a mistake in it should not cost a build
    if parsed.gpus and reference is None and not without:
        raise Refused(
            f"{config} asks for {parsed.gpus} GPUs, and this image would have nothing to verify them by",
            "tinboot gpu pin makes reference values from NVIDIA's RIMs: --gpu-reference-values DIR",
        )
    pinned = None if reference is None else gpu_reference.read(reference)
    final = output or Path(f"{config.stem}.build")
    assemble.check_output(final)
    with progress() as shown:
        wanted = recipe.this_checkout(distribution or default_distribution(), profile, pinned)
        wanted.lock()
        shown.step("Fetching what builds need")
        chain = prepare.toolchain(wanted.distribution, shown.note, shown.count)
        shown.step(f"Building {wanted.name}")
        images = places.build_folder() / "images"
        made = image.build(wanted, chain, images, shown.note)
        if pinned is not None and (version := driver.version(made.packages)):
            pinned.require_driver(version)
        shown.step(f"Writing {final}")
        built = assemble.assemble(config, made, wanted, chain.mkosi, final)
    click.echo(built.dump().decode() if as_json else _summary(built, final), nl=not as_json)


def _summary(built: Manifest, final: Path) -> str:
    lines = [f"{final}/"]
    for artefact in (built.kernel, built.initrd, built.root):
        lines.append(f"  {artefact.file:<12} {artefact.size / 1e6:8.2f} MB  sha256 {artefact.sha256[:16]}…")
    lines.append(f"  {'root hash':<12} {built.verity.root_hash}")
    lines.append(f"  {'config hash':<12} {built.config.sha256}")
    lines.append(f"  {'packages':<12} {len({p.name for p in built.packages})}, listed in manifest.json")
    for file in built.gpu_reference_values:
        if file.file == REFERENCE_VALUES:
            rims = len(built.gpu_reference_values) - 1
            lines.append(f"  {'GPUs':<12} reference values of {rims} RIMs  sha256 {file.sha256[:16]}…")
    if built.gpus and not built.gpu_reference_values:
        lines.append(f"  {'GPUs':<12} no reference values: this image refuses every GPU")
    return "\n".join(lines)
