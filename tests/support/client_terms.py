"""What a relying party demands of the made-up guest (served_guest.py), so that a good one passes."""

from __future__ import annotations

from typing import Any

import fake_gpus
import served_guest
from served_guest import MEASUREMENT

from tinboot.client import Given, Terms
from tinboot.verify import advisories, certificate, policy, roots
from tinboot.verify.certificate import Certificate
from tinboot.verify.document import GpuDemands
from tinboot.verify.gpu_appraisal import Collateral
from tinboot.verify.gpu_policy import RELYING_PARTY, Policy


def amd_root() -> Certificate:
    return certificate.parse(served_guest.issuers()[1])


def pinned() -> tuple[roots.Root, ...]:
    return (*roots.AMD, roots.test_root(amd_root()))


def terms(gpus: int = 0, profile: str = "baseline", **fields: Any) -> Terms:
    """Of so many GPUs, that launch digest, the test roots."""
    demanded = None
    if gpus:
        collateral = Collateral(fake_gpus.reference(), (), (fake_gpus.root(),))
        demanded = GpuDemands(collateral, Policy("HOPPER", gpus, bytes(32), RELYING_PARTY))
    wanted = policy.shipped(profile).pinned(measurement=MEASUREMENT)
    return Terms(wanted, advisories.shipped(), demanded, Given(pinned=pinned()))._replace(**fields)
