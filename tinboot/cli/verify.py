"""`tinboot verify`: appraises evidence, of a host or in a file.

`verify HOST` is verify_host.py's; `verify report` fetches nothing, everything comes from files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click

from tinboot.cli.parameters import FILE, FILE_OR_STDIN, Hex, moment, read
from tinboot.cli.verdicts import show, wrapped
from tinboot.formats import certtable, snpreport
from tinboot.formats.errors import Malformed, Unavailable
from tinboot.formats.snpreport import Report
from tinboot.verify import advisories, appraisal, certificate, policy, roots
from tinboot.verify.appraisal import Appraisal, Endorsements
from tinboot.verify.certificate import Certificate
from tinboot.verify.policy import Policy

_VLEK = 1  # SIGNING_KEY, in KEY_INFO: AMD SEV-SNP Firmware ABI Specification (56860) 1.58, table 23


def _print_policy(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        click.echo(policy.text(value), nl=False)
        ctx.exit()


class _Commands(click.Group):
    """`report` by name; whatever else stands first is a host, or an option of verifying one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {"report", "host", "-h", "--help"}:
            args = ["host", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_LINES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "host":
            from tinboot.cli import verify_host  # noqa: PLC0415 - a report in a file needs no network library

            return verify_host.command
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_LINES.items()))


_LINES = {
    "host": "What a host says of itself; the word may be left out.",
    "report": "An attestation report in a file.",
}


@click.group(cls=_Commands, subcommand_metavar="[host] HOST[:PORT] | report FILE")
def command() -> None:
    """Appraise evidence with endorsements, a policy and a time.

    Exit codes: 0 accepted, 3 malformed, 4 signature or endorsement, 5 against the policy, 6 cannot tell.
    """


@command.command()
@click.argument("report", type=FILE_OR_STDIN)
@click.option("--vek", type=FILE, metavar="CERT", help="The chip's (VCEK) or provider's (VLEK) certificate.")
@click.option("--certs", type=FILE, metavar="TABLE", help="A certificate table, as the guest got it.")
@click.option("--chain", type=FILE, metavar="PEM", help="Issuers. Default: AMD's, which tinboot has.")
@click.option("--crl", type=FILE, metavar="CRL", help="AMD's revocation list for the product.")
@click.option("--policy", "policy_file", type=FILE, metavar="FILE", help="A policy of your own.")
@click.option("--profile", type=click.Choice(policy.PROFILES), help="A shipped one. Default: baseline.")
@click.option("--allow-product", "products", type=click.Choice(["Milan", "Genoa", "Turin"]), multiple=True)
@click.option("--measurement", type=Hex(48), metavar="HEX", help="The launch digest that it must have.")
@click.option("--report-data", type=Hex(64), metavar="HEX", help="The REPORT_DATA that it must have.")
@click.option("--host-data", type=Hex(32), metavar="HEX", help="The HOST_DATA that it must have.")
@click.option("--at", metavar="RFC3339", callback=moment, help="The time to appraise for. Default: now.")
@click.option("--trust-root", type=FILE, metavar="CERT", help="TESTS ONLY: trust this root, too.")
@click.option("--json", "as_json", is_flag=True, help="Print every check and claim as JSON.")
@click.option(
    "--print-policy",
    type=click.Choice(policy.PROFILES),
    callback=_print_policy,
    is_eager=True,
    expose_value=False,
    help="Print a shipped policy to start from, and exit.",
)
def report(
    report: Path,
    vek: Path | None,
    certs: Path | None,
    chain: Path | None,
    crl: Path | None,
    policy_file: Path | None,
    profile: str | None,
    products: tuple[str, ...],
    measurement: bytes | None,
    report_data: bytes | None,
    host_data: bytes | None,
    at: datetime,
    trust_root: Path | None,
    as_json: bool,
) -> None:
    """Appraise REPORT, an SEV-SNP attestation report of 1184 bytes; `-` is standard input.

    Certificates are PEM or DER. Without --measurement and --report-data the result says only that a genuine
    guest of some kind made the report at some time.
    """
    parsed = snpreport.parse(read(report))
    endorsements = _endorsements(parsed, vek, certs, chain, crl, trust_root)
    demanded = policy_of(policy_file, profile).allowing(*products)
    demanded = demanded.pinned(measurement=measurement, report_data=report_data, host_data=host_data)
    result = appraisal.appraise(parsed, endorsements, demanded, advisories.shipped(), at)
    if as_json:
        click.echo(json.dumps(result.fields(), indent=2))
    else:
        _show(result)
    result.accept()


def policy_of(file: Path | None, profile: str | None) -> Policy:
    """Of a file, else a shipped one."""
    if file is not None and profile is not None:
        raise click.UsageError("give --policy or --profile, not both")
    if file is None:
        return policy.shipped(profile or "baseline")
    return policy.load(str(file), read(file))


def _endorsements(
    report: Report,
    vek: Path | None,
    certs: Path | None,
    chain: Path | None,
    crl: Path | None,
    trust_root: Path | None,
) -> Endorsements:
    # first what the user names: a table is the host's, and the first of a name counts
    offered: list[Certificate] = [] if chain is None else [*certificates(chain)]
    own = None if vek is None else one(vek)
    if certs is not None:
        table = table_of(certs)
        for name, data in (("ASK", table.ask), ("ARK", table.ark)):
            try:
                offered += () if data is None else certificate.read(data)
            except Malformed as error:  # a hint of the host's that may not be needed
                click.echo(f"note: the {name} in {certs} is passed over: {error.message}", err=True)
        given = table.vlek if report.key_info >> 2 & 7 == _VLEK else table.vcek
        if own is None and given is not None:
            try:
                own = certificate.read(given)[0]
            except Malformed as error:
                raise Malformed(f"the report's certificate in {certs}: {error.message}") from error
    if own is None:
        raise Unavailable(
            "there is no certificate of the report's key",
            "give --vek CERT (AMD's key distribution service has it by chip and TCB), or --certs TABLE",
        )
    pinned: Sequence[roots.Root] = roots.AMD
    if trust_root is not None:
        root = trusted(trust_root)
        pinned = (*pinned, roots.test_root(root))
        offered.insert(0, root)
    return Endorsements(own, offered, None if crl is None else read(crl), pinned)


def table_of(path: Path) -> certtable.Certificates:
    try:
        return certtable.parse(read(path))
    except Malformed as error:
        raise Malformed(f"{path}: {error.message}", error.hint) from error


def trusted(path: Path) -> Certificate:
    """A root that is not AMD's, with a warning."""
    root = one(path)
    click.echo(f"WARNING: trusting the root {root.common_name!r} of {path}, which is not AMD's", err=True)
    return root


def certificates(path: Path) -> Sequence[Certificate]:
    try:
        return certificate.read(read(path))
    except Malformed as error:
        raise Malformed(f"{path}: {error.message}", error.hint) from error


def one(path: Path) -> Certificate:
    found = certificates(path)
    if len(found) != 1:
        raise Malformed(f"{path}: {len(found)} certificates, expected one")
    return found[0]


def _show(result: Appraisal) -> None:
    show_report(result)
    if result.failure is None:
        word = click.style("accepted", fg="green", bold=True)
        click.echo(wrapped(f"{word} by {named_policy(result.policy)}"))
        say_whose(result)
    else:
        word = click.style("refused", fg="red", bold=True)
        click.echo(wrapped(f"{word} with exit code {result.failure.exit_code}"))


def named_policy(policy: Policy) -> str:
    changed = "".join(f", {change}" for change in policy.changed)
    return f"the policy {policy.name!r} of {policy.date}{changed}"


def say_whose(result: Appraisal, *, err: bool = False) -> None:
    """A line where the root is not AMD's."""
    real = {root.fingerprint for root in roots.AMD}
    if result.endorsement is not None and result.endorsement.root not in real:
        click.echo("but by a TEST ROOT: nothing of this says that there is a chip of AMD's", err=err)


def show_report(result: Appraisal) -> None:
    """The checks, then the advisories, then what the report states; 80 columns wide."""
    show(result.verdicts)
    refused = "" if result.failure is None else ", NOT VERIFIED"
    click.echo(f"advisories, as of {result.data.date}{refused}:")
    for finding in result.advisories:
        named = f"{finding.advisory.id} ({finding.advisory.bulletin}, {finding.advisory.name})"
        click.echo(wrapped(f"  {finding.standing}: {named}: {finding.detail}"))
    claims = result.claims()
    digest = str(claims["measurement"])
    key = "" if result.endorsement is None else f", signed by a {result.endorsement.kind}"
    click.echo(f"product      {claims['product']}, firmware {claims['firmware']}{key}{refused}")
    click.echo(f"measurement  {digest[:64]}\n             {digest[64:]}")
