"""`tinboot verify report` beside the cryptography that nobody can save, in one run.

    cold       report and certificates as bytes, to an accepted result: beside the bare cryptography from the
               same bytes, three certificate signatures (RSA-4096) and the report's (P-384), whose keys
               `cryptography.x509` takes out of the certificates. Beside that, for who keeps keys, both with
               keys decoded before
    cached     the report as bytes, its chain verified before: beside the report's signature alone
    start      `tinboot verify report --help`, every module loaded: beside `import cryptography.x509`

The chain is the harness's, which is as long and as large as AMD's. Each is run --rounds times in turn; the
table has the best.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tinboot.builder import places
from tinboot.formats import snpreport
from tinboot.formats.snptcb import GENOA
from tinboot.verify import advisories, appraisal, certificate, chain, policy, roots
from tinboot.verify.appraisal import Endorsements
from tinboot.verify.chain import Endorsement

sys.path.insert(0, str(places.REPOSITORY / "qemu"))

import stub_chain
import stub_report

#: At most so many times the cryptography alone; the start, so many times the import.
COLD, CACHED, START = 1.3, 1.15, 1.5

REPEAT = 50


class Evidence(NamedTuple):
    """DER all of them: the chip's certificate, its issuer's, the root."""

    report: bytes
    vcek: bytes
    ask: bytes
    ark: bytes
    now: datetime


def evidence() -> Evidence:
    """A report that the baseline policy accepts, and its chain."""
    now = datetime.now(UTC)
    amd = stub_chain.authority(places.build_folder() / "stub-amd", GENOA, now)
    key = stub_chain.chip_key()
    vcek = amd.issue(amd.vcek(key, stub_report.TCBS[GENOA], stub_report.chip_id(GENOA)))
    report = stub_report.sign(stub_report.Contents(GENOA, report_data=bytes(range(64))).pack(), key)
    return Evidence(report, vcek, *amd.chain(), now)


def endorsements_of(given: Evidence) -> Endorsements:
    """From nothing but bytes."""
    vek, ask, ark = (certificate.parse(der) for der in (given.vcek, given.ask, given.ark))
    return Endorsements(vek, (ask, ark), None, (roots.test_root(ark),))


def accept(
    given: Evidence, endorsements: Endorsements, known: Endorsement | None = None
) -> appraisal.Accepted:
    found = snpreport.parse(given.report)
    demanded, data = policy.shipped("baseline"), advisories.shipped()
    return appraisal.appraise(found, endorsements, demanded, data, given.now, known).accept()


def accept_with_new_keys(given: Evidence) -> appraisal.Accepted:
    """As the first of a process, but for its imports."""
    chain._public_key.cache_clear()
    return accept(given, endorsements_of(given))


def certificates_alone(given: Evidence) -> Callable[[], None]:
    """Three RSA signatures, through `cryptography` and with everything at hand."""
    leaf, ask, ark = (x509.load_der_x509_certificate(der) for der in (given.vcek, given.ask, given.ark))
    scheme = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
    jobs = []
    for signed, issuer in ((leaf, ask), (ask, ark), (ark, ark)):
        key = issuer.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        jobs.append((key, signed.signature, signed.tbs_certificate_bytes))

    def run() -> None:
        for key, signature, signed in jobs:
            key.verify(signature, signed, scheme, hashes.SHA384())

    return run


def cryptography_alone(given: Evidence) -> None:
    """The four signatures from the bytes of certificates and report, every key decoded anew."""
    certificates_alone(given)()
    report_alone(given)()


def report_alone(given: Evidence) -> Callable[[], None]:
    """One P-384 signature."""
    key = x509.load_der_x509_certificate(given.vcek).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    signature = encode_dss_signature(*stub_report.signature(given.report))
    signed, algorithm = given.report[: snpreport.SIGNED], ec.ECDSA(hashes.SHA384())
    return lambda: key.verify(signature, signed, algorithm)


def start(cache: str, code: str, *arguments: str) -> Callable[[], object]:
    """A Python that ends after `code`. Its byte code is kept in `cache`, as an installed one's is."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": cache}
    command = [sys.executable, "-c", code, *arguments]
    run = partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL, env=environment)
    run()
    return run


def best(rounds: int, works: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Milliseconds of each, the best of `rounds`, in turn so that other work on the machine meets all."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            for _ in range(repeat):
                work()
            taken[name].append((time.perf_counter() - began) / repeat * 1000)
    return {name: min(times) for name, times in taken.items()}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="of each (default 15)")
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")  # of `cryptography`, about AMD's serial number 0
    given = evidence()
    endorsements = endorsements_of(given)
    known = accept(given, endorsements).endorsement
    works: dict[str, Callable[[], object]] = {
        "one": report_alone(given),
        "cached": lambda: accept(given, endorsements, known),
        "certificates": certificates_alone(given),
        "cold": lambda: accept(given, endorsements_of(given)),
        "new": lambda: accept_with_new_keys(given),
        "bytes": lambda: cryptography_alone(given),
    }
    took = best(rounds, works, REPEAT)
    bare = took["certificates"] + took["one"]
    with tempfile.TemporaryDirectory() as cache:
        starts = {
            "import": start(cache, "import cryptography.x509"),
            "start": start(cache, "from tinboot.cli.main import main; main()", "verify", "report", "--help"),
        }
        took |= best(rounds, starts, 1)
    cold, cached = took["cold"] / bare, took["cached"] / took["one"]
    began = took["start"] / took["import"]

    print(f"\nverifying a report, best of {rounds}")
    print(f"{'':44}{'ms':>10}{'ratio':>9}{'limit':>9}")
    print(f"{'three RSA-4096, one P-384, from bytes':44}{took['bytes']:10.3f}")
    print(f"{'  ours, from bytes':44}{took['new']:10.3f}{took['new'] / took['bytes']:9.2f}{COLD:9}")
    print(f"{'the same with keys decoded before':44}{bare:10.3f}")
    print(f"{'  ours, with keys decoded before':44}{took['cold']:10.3f}{cold:9.2f}")
    print(f"{'one P-384 signature':44}{took['one']:10.3f}")
    print(f"{'  ours, the chain cached':44}{took['cached']:10.3f}{cached:9.2f}{CACHED:9}")
    print(f"{'import cryptography.x509':44}{took['import']:10.1f}")
    print(f"{'  tinboot verify report --help':44}{took['start']:10.1f}{began:9.2f}{START:9}")


if __name__ == "__main__":
    main()
