"""Shipped policies, TCB floors and advisories: dated data, no code."""
