"""The verifier: appraises evidence with endorsements, reference values and a policy. No I/O, no clock."""
