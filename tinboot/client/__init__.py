"""Relying parties: fetch evidence, appraise it, and talk only over what was attested.

    host = client.verify(client.origin("guest.example"), terms, datetime.now(UTC))
    with host.client() as talk:
        talk.post("/v1/embeddings", json={...})

docs/client.md has the whole of it.
"""

from tinboot.client.endorsements import Given
from tinboot.client.fetch import Origin, origin
from tinboot.client.verified import Examined, Terms, Verified, examine, verify

__all__ = ["Examined", "Given", "Origin", "Terms", "Verified", "examine", "origin", "verify"]
