"""`tinboot id-block`: a signed statement of what may be launched, for the PSP to enforce."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import click

from tinboot.builder import idblock_sign
from tinboot.cli.measure import Number, digest_option
from tinboot.formats import launchspec
from tinboot.formats.errors import Refused
from tinboot.formats.idblock import IdBlock

_FILE = click.Path(path_type=Path, dir_okay=False)


def _identifier(_ctx: click.Context, _param: click.Parameter, value: str) -> bytes:
    if not re.fullmatch("(?:[0-9a-fA-F]{2}){1,16}", value):
        raise click.BadParameter("not 1 to 16 bytes in hex")
    return bytes.fromhex(value).ljust(16, b"\0")


@click.command()
@click.argument("digest", callback=digest_option)
@click.option("--id-key", type=_FILE, metavar="PEM", required=True, help="P-384 key that signs the block.")
@click.option("--author-key", type=_FILE, metavar="PEM", required=True, help="P-384 key that signs that.")
@click.option("--policy", type=Number(), metavar="N", default=launchspec.DEFAULT_POLICY, help="Guest policy.")
@click.option("--svn", type=Number(), metavar="N", default=0, help="Security version of the guest.")
@click.option("--family-id", metavar="HEX", default="00", callback=_identifier, help="At most 16 bytes.")
@click.option("--image-id", metavar="HEX", default="00", callback=_identifier, help="At most 16 bytes.")
@click.option("--json", "as_json", is_flag=True, help="Print block, authentication and key digests as JSON.")
def command(
    digest: bytes,
    id_key: Path,
    author_key: Path,
    policy: int,
    svn: int,
    family_id: bytes,
    image_id: bytes,
    as_json: bool,
) -> None:
    """Sign an ID block for the launch digest DIGEST (hex or base64, from `tinboot measure`).

    Prints the properties of QEMU's sev-snp-guest object. The launch then fails unless digest and policy are
    these, and the report carries the digests of both keys.
    """
    launchspec.check_policy(policy)
    if not 0 <= svn < 1 << 32:
        raise Refused(f"the SVN {svn} does not fit in 32 bits")
    block = IdBlock(digest, policy, family_id, image_id, svn)
    signed = idblock_sign.sign(block, idblock_sign.load_key(id_key), idblock_sign.load_key(author_key))
    properties = {
        "id-block": base64.b64encode(signed.block).decode(),
        "id-auth": base64.b64encode(signed.authentication).decode(),
    }
    if as_json:
        digests = {
            "id_key_digest": signed.id_key_digest.hex(),
            "author_key_digest": signed.author_key_digest.hex(),
        }
        click.echo(json.dumps({**properties, **digests}, indent=2))
        return
    click.echo(",".join(f"{name}={value}" for name, value in properties.items()) + ",author-key-enabled=on")
    click.echo(f"ID_KEY_DIGEST      {signed.id_key_digest.hex()}", err=True)
    click.echo(f"AUTHOR_KEY_DIGEST  {signed.author_key_digest.hex()}", err=True)
