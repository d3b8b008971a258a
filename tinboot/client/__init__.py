"""Relying parties: fetch evidence, appraise it, and talk only over what was attested."""
