"""docs/verify.md is held to the code: every check of a document, and which of them may be open."""

from __future__ import annotations

import re
from pathlib import Path

from tinboot.formats import reportdata
from tinboot.verify import complete, complete_binding, document, document_binding

PAGE = (Path(__file__).parents[2] / "docs/verify.md").read_text("utf-8")
SECTION = PAGE.partition("\n## Attestation documents\n")[2].partition("\n## ")[0]

REGISTRY = [
    *(("v2", c.id, c.meaning) for c in document.FORMATS_V2),
    *(("v2", c.id, c.meaning) for c in document_binding.CHECKS_V2),
    *(("v3", c.id, c.meaning) for c in document.FORMATS_V3),
    *(("v3", c.id, c.meaning) for c in document_binding.CHECKS_V3),
    *(("complete", c.id, c.meaning) for c in complete.FORMATS),
    *(("complete", c.id, c.meaning) for c in complete_binding.CHECKS),
]


def test_every_check_stands_there_in_order() -> None:
    shown = re.findall(r"^\| (v2|v3|complete) \| `([a-z0-9-]+)` \| (.+) \|$", SECTION, re.MULTILINE)
    assert shown == REGISTRY


def test_which_may_be_open() -> None:
    sentence = next(part for part in SECTION.split("\n\n") if " may be `unchecked`" in part)
    named = set(re.findall(r"`([a-z-]+)`", sentence.partition(" may be ")[0]))
    assert named == document.MAY_BE_UNCHECKED | complete.MAY_BE_UNCHECKED


def test_the_label_is_the_one_that_is_hashed() -> None:
    assert f"`{reportdata.ALGORITHM}`" in SECTION


def test_the_example_names_what_there_is() -> None:
    code = SECTION.partition("```python\n")[2].partition("```")[0]
    compile(code, "docs/verify.md", "exec")
    named = set(re.findall(r"host\.([a-z]+)", code))
    assert named <= {name for name in dir(document.AttestedHost) if not name.startswith("_")}
