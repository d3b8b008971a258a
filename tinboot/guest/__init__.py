"""The attester's second stage: what runs in the verified root. Trusted by the root hash it is part of."""
