"""`tinboot verify HOST`: fetches what a host says of itself, for a fresh nonce, and appraises it."""

from __future__ import annotations

import json

import click

from tinboot import client
from tinboot.cli import gpu_verify
from tinboot.cli import verify as report
from tinboot.cli.host_options import Options, stages, terms, verification, where
from tinboot.cli.verdicts import show, wrapped
from tinboot.client import Examined


@click.command("host")
@click.argument("host", metavar="HOST[:PORT]")
@verification
@click.option("--json", "as_json", is_flag=True, help="Print every check and claim as JSON.")
def command(options: Options, host: str, as_json: bool) -> None:
    """Appraise what HOST says of itself: CPU and GPU evidence for a fresh nonce, bound to the TLS key of this
    very connection and to the HPKE key that HOST gives out.

    No certificate authority is asked: what is trusted is the attested key. AMD is asked for certificates that
    neither files have nor the host brings along, and for its revocation list.

    Exit codes: 0 accepted, 3 malformed, 4 signature or endorsement, 5 against the policy, 6 cannot tell.
    """
    origin = where(host, options)
    with stages() as told:
        demanded = terms(options, told)
        found = client.examine(origin, demanded, options.at, seconds=options.timeout, told=told)
    if as_json:
        click.echo(json.dumps(found.fields(), indent=2))
    else:
        _show(found)
    found.accept()


def _show(found: Examined) -> None:
    """What concerns the connection and the document, then the report, then the GPUs; 80 columns wide."""
    appraisal, failure = found.appraisal, found.failure
    refused = "" if failure is None else ", NOT VERIFIED"
    click.echo(wrapped(f"{found.origin.authority}{refused}:"))
    show((*found.connection, *appraisal.verdicts))
    if appraisal.cpu is not None:
        click.echo("its report:")
        report.show_report(appraisal.cpu)
    if appraisal.gpus is not None:
        gpu_verify.show_gpus(appraisal.gpus)
    if appraisal.keys is not None:
        click.echo(f"TLS key      {appraisal.keys.tls.hex()}{refused}")
        click.echo(f"HPKE key     {appraisal.keys.hpke.hex()}{refused}")
    if failure is not None:
        word = click.style("refused", fg="red", bold=True)
        click.echo(wrapped(f"{word} with exit code {failure.exit_code}"))
        return
    word = click.style("accepted", fg="green", bold=True)
    many = "no GPUs" if appraisal.gpus is None else f"{len(appraisal.gpus.gpus)} GPUs"
    named = report.named_policy(appraisal.demands.policy)
    click.echo(wrapped(f"{word}: {found.origin.authority}, {many}, by {named}"))
    if appraisal.cpu is not None:
        report.say_whose(appraisal.cpu)
    if appraisal.gpus is not None:
        gpu_verify.say_whose(appraisal.gpus)
