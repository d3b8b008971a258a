"""`tinboot measure`: the launch digest that a report of this launch will carry."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from tinboot.builder import explain as neighbours
from tinboot.builder import measure, output
from tinboot.formats import kernelhashes, launchdigest, launchmanifest, launchspec, vcpumodels
from tinboot.formats.errors import Malformed, Mismatch, Unavailable
from tinboot.formats.launchdigest import Vcpu
from tinboot.formats.launchmanifest import KernelHashes, LaunchManifest
from tinboot.host import builddir

_FILE = click.Path(path_type=Path, dir_okay=False)
_SHA384 = re.compile("[0-9a-fA-F]{96}")
#: KVM's most (arch/x86/include/asm/kvm_host.h, KVM_MAX_VCPUS); the launcher starts fewer.
_MAX_VCPUS = 4096

_DEFAULT = Vcpu(vcpumodels.SIGNATURES[launchspec.DEFAULT_MODEL], launchspec.SNP_ACTIVE)


class Number(click.ParamType[int]):
    """A whole number as C and sev-snp-measure write it: 33, 0x21, 0b1."""

    name = "number"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return int(str(value), 0)
        except ValueError:
            self.fail(f"{value!r} is not a number like 1 or 0x21", param, ctx)


def _counts(_ctx: click.Context, _param: click.Parameter, value: str | None) -> range | None:
    """`N` or `N..M`."""
    if value is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,3})(?:\.\.([1-9][0-9]{0,3}))?", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is neither a count nor a range like 1..64")
    first, last = int(match[1]), int(match[2] or match[1])
    if not first <= last <= _MAX_VCPUS:
        raise click.BadParameter(f"{value} is not within 1..{_MAX_VCPUS}")
    return range(first, last + 1)


def digest_option(_ctx: click.Context, _param: click.Parameter, value: str | None) -> bytes | None:
    """48 bytes, in hex or base64."""
    if value is None:
        return None
    if _SHA384.fullmatch(value):
        return bytes.fromhex(value)
    try:
        decoded = base64.b64decode(value, validate=True)
    except ValueError:
        decoded = b""
    if len(decoded) != launchdigest.SIZE:
        raise click.BadParameter("not 48 bytes in hex (96 digits) or base64 (64 characters)")
    return decoded


@click.command()
@click.argument("build", metavar="[BUILD]", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--ovmf", type=_FILE, metavar="FD", help="The firmware image.")
@click.option("--kernel", type=_FILE, metavar="FILE", help="Kernel of a direct boot; else BUILD's.")
@click.option("--initrd", type=_FILE, metavar="FILE", help="Its initrd.")
@click.option("--append", metavar="TEXT", help="Its command line; the NUL is added.")
@click.option("--vcpus", metavar="N|N..M", callback=_counts, help="Count, or each of a range; else BUILD's.")
@click.option(
    "--vcpu-type",
    metavar="MODEL",
    type=click.Choice(list(vcpumodels.SIGNATURES)),
    help=f"QEMU's CPU model. Default: {launchspec.DEFAULT_MODEL}.",
)
@click.option("--vcpu-sig", type=Number(), metavar="N", help="Or its CPUID signature.")
@click.option("--vcpu-family", type=Number(), metavar="N", help="Or family, model and stepping.")
@click.option("--vcpu-model", type=Number(), metavar="N")
@click.option("--vcpu-stepping", type=Number(), metavar="N")
@click.option("--vmm-type", type=click.Choice(launchdigest.VMMS), help="Default: QEMU.")
@click.option("--guest-features", type=Number(), metavar="N", help="SEV_FEATURES. Default: 0x1.")
@click.option("--snp-ovmf-hash", metavar="HEX", callback=digest_option, help="Digest of FD's pages.")
@click.option("--mode", type=click.Choice(["snp", "snp:ovmf-hash"]), default="snp", help="Or pages alone.")
@click.option("--output-format", type=click.Choice(["hex", "base64"]), default="hex", help="Default: hex.")
@click.option("--manifest", type=_FILE, metavar="FILE", help="A launch manifest in place of BUILD and files.")
@click.option("--write-manifest", type=_FILE, metavar="FILE", help="Write the launch manifest, too.")
@click.option("--force", is_flag=True, help="Replace an existing FILE.")
@click.option("--explain", metavar="DIGEST", callback=digest_option, help="Say which launch DIGEST is of.")
@click.option("--other-ovmf", type=_FILE, multiple=True, metavar="FD", help="Firmware to try, too.")
@click.option("--json", "as_json", is_flag=True, help="Print digests and ingredients as JSON.")
def command(
    build: Path | None,
    ovmf: Path | None,
    kernel: Path | None,
    initrd: Path | None,
    append: str | None,
    vcpus: range | None,
    vcpu_type: str | None,
    vcpu_sig: int | None,
    vcpu_family: int | None,
    vcpu_model: int | None,
    vcpu_stepping: int | None,
    vmm_type: str | None,
    guest_features: int | None,
    snp_ovmf_hash: bytes | None,
    mode: str,
    output_format: str,
    manifest: Path | None,
    write_manifest: Path | None,
    force: bool,
    explain: bytes | None,
    other_ovmf: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Compute the SNP launch digest, which the report of the guest carries as MEASUREMENT.

    BUILD is a directory that `tinboot build` made; then only --ovmf is needed. Without it, name the files
    one by one, or give a launch manifest. A range of counts prints one line for each: count, digest.
    """
    signature = _signature(vcpu_type, vcpu_sig, (vcpu_family, vcpu_model, vcpu_stepping))
    files = (kernel, initrd, append)
    if mode == "snp:ovmf-hash":
        if ovmf is None or build or manifest or any(file is not None for file in files):
            raise click.UsageError("--mode snp:ovmf-hash takes --ovmf FD and nothing else to measure")
        click.echo(_text(measure.read_firmware(ovmf)[1], output_format))
        return
    if other_ovmf and explain is None:
        raise click.UsageError("--other-ovmf goes with --explain")
    if write_manifest is not None and explain is not None:
        raise click.UsageError("--explain writes no launch manifest")
    text = append
    if manifest is not None:
        if build or ovmf or kernel or initrd or snp_ovmf_hash:
            raise click.UsageError("a launch manifest has it all: leave out BUILD and the files")
        found = _read(manifest)
        _check_line(found, append)
    else:
        if ovmf is None:
            raise click.UsageError("name the firmware with --ovmf FD, or give --manifest FILE")
        hashed = _hashes(*files)
        if build is not None:
            if any(file is not None for file in files):
                raise click.UsageError("BUILD has kernel, initrd and command line: give no others")
            made = builddir.check(build, builddir.read_manifest(build))
            spec = builddir.launch_spec(made, {}, ovmf, (), ())
            text = made.manifest.command_line
            vcpus = vcpus or range(spec.measured.vcpus, spec.measured.vcpus + 1)
            found = measure.of(spec.measured)
        else:
            found = measure.manifest(ovmf, hashed, _DEFAULT)
        if snp_ovmf_hash is not None:
            found = found._replace(digest=snp_ovmf_hash)
    if vcpus is None:
        raise click.UsageError("say how many vCPUs: --vcpus N")
    found = found._replace(vcpu=_changed(found.vcpu, signature, guest_features, vmm_type))
    if explain is not None:
        if len(vcpus) > 1:
            raise click.UsageError("--explain takes the one count that was meant: --vcpus N")
        _explain(explain, found, vcpus[0], text, other_ovmf, as_json)
        return
    digests = list(found.digests(vcpus[-1]))[vcpus[0] - 1 :]
    if write_manifest is not None:
        _write(found, write_manifest, force)
    _print(found, vcpus, digests, output_format, as_json)


def _check_line(found: LaunchManifest, append: str | None) -> None:
    """The text beside a launch manifest tells --explain what its hash is of."""
    if append is None:
        return
    if found.kernel is None or found.kernel.command_line != kernelhashes.command_line_digest(append):
        raise Mismatch(
            "--append is not the command line of the launch manifest",
            "give the same text, or leave it out: without it --explain cannot try slips in it",
        )


def _hashes(kernel: Path | None, initrd: Path | None, append: str | None) -> KernelHashes | None:
    if kernel is None:
        if initrd is not None or append is not None:
            raise click.UsageError("--initrd and --append go with --kernel")
        return None
    return measure.kernel_hashes(kernel, initrd, append or "")


def _signature(name: str | None, value: int | None, parts: tuple[int | None, ...]) -> int | None:
    given = [name is not None, value is not None, any(part is not None for part in parts)]
    if sum(given) > 1:
        raise click.UsageError("give one of --vcpu-type, --vcpu-sig and --vcpu-family")
    if name is not None:
        return vcpumodels.SIGNATURES[name]
    if value is not None:
        if not 0 <= value < 1 << 32:
            raise click.UsageError(f"--vcpu-sig {value:#x} does not fit in 32 bits")
        return value
    if not given[2]:
        return None
    family, model, stepping = parts
    if family is None or model is None or stepping is None:
        raise click.UsageError("--vcpu-family, --vcpu-model and --vcpu-stepping go together")
    try:
        return vcpumodels.signature(family, model, stepping)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _changed(vcpu: Vcpu, signature: int | None, features: int | None, vmm: str | None) -> Vcpu:
    if signature is not None:
        vcpu = vcpu._replace(signature=signature)
    if features is not None:
        if not 0 <= features < 1 << 64:
            raise click.UsageError(f"--guest-features {features:#x} does not fit in 64 bits")
        vcpu = vcpu._replace(features=features)
    return vcpu if vmm is None else vcpu._replace(vmm=vmm)


def _read(path: Path) -> LaunchManifest:
    try:
        with path.open("rb") as file:
            data = file.read(launchmanifest.LIMIT + 1)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
    try:
        return launchmanifest.load(data)
    except Malformed as error:
        raise Malformed(f"{path}: {error.message}", "`tinboot measure --write-manifest` makes one") from error


def _write(found: LaunchManifest, path: Path, force: bool) -> None:
    with output.scratch(path) as folder:
        made = folder / "manifest"
        try:
            made.write_bytes(found.dump())
        except OSError as error:
            raise output.unavailable(error, path) from error
        output.publish(made, path, force=force)


def _explain(
    wanted: bytes,
    found: LaunchManifest,
    vcpus: int,
    text: str | None,
    others: Sequence[Path],
    as_json: bool,
) -> None:
    firmware = [(path, *measure.read_firmware(path)) for path in others]
    differences = neighbours.explain(wanted, found, vcpus, command_line=text, others=firmware)
    if as_json:
        fields = {"digest": wanted.hex(), "differences": [asdict(one) for one in differences]}
        click.echo(json.dumps(fields, indent=2))
    elif differences:
        click.echo("the digest is of this launch with")
        for one in differences:
            click.echo(f"  {one}")
    else:
        click.echo("the digest is of this very launch")


def _print(
    found: LaunchManifest, vcpus: range, digests: Sequence[bytes], output_format: str, as_json: bool
) -> None:
    texts = [_text(digest, output_format) for digest in digests]
    if as_json:
        manifest = json.loads(found.dump())
        digest_of = {str(count): text for count, text in zip(vcpus, texts, strict=True)}
        click.echo(json.dumps({"digests": digest_of, "manifest": manifest}, indent=2))
    elif len(texts) == 1:
        click.echo(texts[0])
    else:
        for count, text in zip(vcpus, texts, strict=True):
            click.echo(f"{count} {text}")


def _text(digest: bytes, output_format: str) -> str:
    return digest.hex() if output_format == "hex" else base64.b64encode(digest).decode()
