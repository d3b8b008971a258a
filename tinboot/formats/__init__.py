"""The shared language: bytes to frozen values and back. No I/O, no clock, no third party but PyYAML.

Everything here may run in the initrd, so imports are few and small: `typing.NamedTuple` and not
`dataclasses`, `hashlib` but neither `uuid` nor `json` at import time.
"""
