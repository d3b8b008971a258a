"""The YAML subset: what it makes of a document, against PyYAML's own loader, and each refusal."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.halt import Refusal
from tinboot.formats.yamlevents import BYTES, DEPTH
from tinboot.formats.yamlstrict import KEY_LENGTH, NODES, Mapping, Node, Scalar, Sequence, parse, reads_as


def refusal(document: bytes) -> str:
    with pytest.raises(Refusal) as refused:
        parse(document)
    return str(refused.value)


def plain_data(node: Node) -> object:
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Sequence):
        return [plain_data(item) for item in node.items]
    return {key: plain_data(value) for key, value in node.entries.items()}


def test_knows_lines_and_paths() -> None:
    root = parse(b"# one\na: x\nb:\n  - c\n  - 'd e':\n      - |\n        f\n")
    assert isinstance(root, Mapping)
    listing = root.entries["b"]
    assert isinstance(listing, Sequence)
    inner = listing.items[1]
    assert isinstance(inner, Mapping)
    deepest = inner.entries["d e"]
    assert isinstance(deepest, Sequence)
    assert [str(node.place) for node in (root, root.entries["a"], listing.items[0], deepest.items[0])] == [
        "line 2",
        "line 2, a",
        "line 4, b[0]",
        "line 6, b[1].d e[0]",
    ]
    assert deepest.items[0] == Scalar(deepest.items[0].place, "f\n", False)


@pytest.mark.parametrize(
    "document",
    [
        b"x",
        b"--- x\n",
        b"x\n...\n",
        b"---\nx\n...\n",
        b"x # comment\n",
        b"# c\n\nx",
        b"'x'",
        b'"\\x78"',
        b"? x\n"[2:],
    ],
)
def test_one_document_however_it_is_framed(document: bytes) -> None:
    root = parse(document)
    assert isinstance(root, Scalar)
    assert root.text == "x"


@pytest.mark.parametrize("document", [b"a: b\nc: |\n  d\n  e\n", b"- 'a\n\n  b'\n", b"{a: b,\n c: d}\n"])
def test_crlf_is_a_line_feed(document: bytes) -> None:
    assert parse(document.replace(b"\n", b"\r\n")) == parse(document)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (b"", "config-malformed: line 1: the file holds no document"),
        (b"# only\n", "config-malformed: line 1: the file holds no document"),
        (b"a: b\n---\nc: d\n", "config-malformed: line 2: a second document begins"),
        (b"a: b\n...\nc: d\n", "config-malformed: line 3: expected '<document start>'"),
        (b"--- a\n--- b\n", "config-malformed: line 2: a second document begins"),
        (b"%YAML 1.1\n---\na: b\n", "config-malformed: line 1: a directive (%)"),
        (b"%TAG ! tag:x,2000:\n---\na: b\n", "config-malformed: line 1: a directive (%)"),
        (b"%X\n---\na: b\n", "config-malformed: line 1: a directive (%)"),
        (b"a:\n  b: !!str c\n", "config-malformed: line 2: a tag (!)"),
        (b"a: !c d\n", "config-malformed: line 1: a tag (!)"),
        (b"a: ! d\n", "config-malformed: line 1: a tag (!)"),
        (b"!!map {a: b}\n", "config-malformed: line 1: a tag (!)"),
        (b"a: !!python/object/apply:os.system [x]\n", "config-malformed: line 1: a tag (!)"),
        (b"a: &b c\n", "config-malformed: line 1: an anchor (&)"),
        (b"&a b: c\n", "config-malformed: line 1: an anchor (&)"),
        (b"a: *b\n", "config-malformed: line 1: an alias (*)"),
        (b"paths: [*]\n", "config-malformed: line 1: an alias (*)"),
        (b"<<: {a: b}\n", "config-malformed: line 1: the key '<<' reads as a YAML 1.1 operator"),
        (b"a: b\na: c\n", "config-malformed: line 2, a stands twice, first on line 1"),
        (b"x:\n- {a: b, 'a': c}\n", "config-malformed: line 2, x[0].a stands twice, first on line 2"),
        (b'a: b\n"\\x61": c\n', "config-malformed: line 2, a stands twice, first on line 1"),
        (b"1: b\n", "config-malformed: line 1: the key '1' reads as a number; keys are strings"),
        (b"on: b\n", "config-malformed: line 1: the key 'on' reads as a boolean; keys are strings"),
        (b"~: b\n", "config-malformed: line 1: the key '~' reads as nothing; keys are strings"),
        (b"?\n: b\n", "config-malformed: line 1: the key '' reads as nothing; keys are strings"),
        (b": b\n", "config-malformed: line 1: while parsing a block mapping"),
        (b"? [a]\n: b\n", "config-malformed: line 1: a key that is itself a list or a mapping"),
        (b"{a: b}: c\n", "config-malformed: line 1: a key that is itself a list or a mapping"),
        (b"? " + b"k" * (KEY_LENGTH + 1) + b"\n: b\n", "config-malformed: line 1: a key of more than 128"),
        (b"a: [b\n", "config-malformed: line 2: while parsing a flow sequence, expected ',' or ']'"),
        (b"a: 'b\n", "config-malformed: line 2: while scanning a quoted scalar"),
        (b"\ta: b\n", "config-malformed: line 1: while scanning for the next token, found character '\\t'"),
        (b"a: b: c\n", "config-malformed: line 1: mapping values are not allowed here"),
        (b"a: @b\n", "config-malformed: line 1: while scanning for the next token, found character '@'"),
        (b'a: "\\UFFFFFFFF"\n', "config-malformed: line 1: an escape that names no Unicode character"),
        (b'\na: "\\U00110000"\n', "config-malformed: line 2: an escape that names no Unicode character"),
        (b'a:\n - "\\ud800"\n', "config-malformed: line 2, a[0]: an escape that gives NUL or half"),
        (b'a: "\\0"\n', "config-malformed: line 1, a: an escape that gives NUL or half"),
        (b'a:\n  "\\0": b\n', "config-malformed: line 2, a: an escape that gives NUL or half"),
        (b"a: b\nc: \xff\n", "config-not-utf8: line 2: byte 8 of the file is not UTF-8"),
        (b"a: \xc0\x80\n", "config-not-utf8: line 1: byte 3"),
        (b"a: \xed\xa0\x80\n", "config-not-utf8: line 1: byte 3"),
        ("a: b\n".encode("utf-16"), "config-not-utf8: line 1: byte 0"),
        (b"\xef\xbb\xbfa: b\n", "config-not-utf8: line 1: the character U+FEFF is not allowed"),
        (b"a: b\rc: d\n", "config-not-utf8: line 1: the character U+000D is not allowed"),
        (b"a: b\n\0", "config-not-utf8: line 2: the character U+0000 is not allowed"),
        (b"a: \x1b[31m\n", "config-not-utf8: line 1: the character U+001B is not allowed"),
        ("a: \x85\n".encode(), "config-not-utf8: line 1: the character U+0085 is not allowed"),
        ("a: b\n# \u2028c: d\n".encode(), "config-not-utf8: line 2: the character U+2028 is not allowed"),
        ("a: \u202e\u2066\n".encode(), "config-not-utf8: line 1: the character U+202E is not allowed"),
    ],
)
def test_refuses(document: bytes, expected: str) -> None:
    assert refusal(document).startswith(expected)


def nested(depth: int, opening: str, closing: str) -> bytes:
    return (opening * depth + "x" + closing * depth).encode()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}"), ("- ", "")])
def test_depth(opening: str, closing: str) -> None:
    parse(nested(DEPTH, opening, closing))
    assert refusal(nested(DEPTH + 1, opening, closing)) == "config-too-complex: line 1: nested deeper than 64"


def test_depth_by_indentation() -> None:
    steps = [f"{' ' * level}a:\n" for level in range(DEPTH + 1)]
    parse("".join(steps[:DEPTH]).encode())
    assert refusal("".join(steps).encode()) == "config-too-complex: line 65: nested deeper than 64"


def test_nodes() -> None:
    parse(b"- x\n" * (NODES - 1))
    assert refusal(b"- x\n" * NODES) == f"config-too-complex: line {NODES}: more than {NODES} nodes"
    pairs = "".join(f"k{number}: x\n" for number in range(NODES // 2))
    assert refusal(pairs.encode()).startswith(f"config-too-complex: line {NODES // 2}: more than")


def test_bytes() -> None:
    assert isinstance(parse(b"a: '" + b"x" * (BYTES - 5) + b"'"), Mapping)
    expected = f"config-too-large: the config has {BYTES + 1} bytes, {BYTES} are allowed"
    assert refusal(b"#" * (BYTES + 1)) == expected


scalars = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Zl", "Zp", "Cs", "Cn", "Co"]), max_size=20
)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=4),
    max_leaves=20,
)


@given(documents, st.sampled_from(["'", '"']), st.booleans(), st.booleans())
def test_reads_back_what_pyyaml_writes(data: object, style: str, flow: bool, unicode: bool) -> None:
    written = yaml.dump(data, default_style=style, default_flow_style=flow, allow_unicode=unicode, width=30)
    assert plain_data(parse(written.encode())) == data


@given(documents)
def test_agrees_with_pyyamls_base_loader(data: object) -> None:
    """Plain scalars included: where both read a file, they read the same."""
    written = yaml.dump(data, allow_unicode=True)
    try:
        ours = plain_data(parse(written.encode()))
    except Refusal as refused:
        assert "reads as" in refused.detail  # noqa: PT017 (not whether, but which)
        return
    assert ours == yaml.load(written, Loader=yaml.BaseLoader)  # noqa: S506 (strings only)


STRINGS = [
    *(
        "a",
        "no thing",
        "0.11.0",
        "1.2.3.4",
        "30s",
        "64g",
        "22:2022",
        "0:0:61",
        "1:2:x",
        "-",
        "--",
        "x1",
        "e5",
        ".",
    ),
    *(
        "-x",
        "a: b",
        "2026-11-x",
        "v1",
        "0xg",
        "0b2",
        "0o8",
        "nan",
        "inf",
        "1-rc",
        "12ab_34-cd",
        "+",
        "...",
    ),
]
OTHERS = {
    "nothing": ["", "~", "null", "Null", "NULL"],
    "a boolean": ["y", "N", "yes", "No", "TRUE", "false", "On", "off"],
    "a YAML 1.1 operator": ["<<", "="],
    "a number": [
        *(
            "0",
            "1",
            "-1",
            "+1",
            "010",
            "0x1F",
            "0o17",
            "0b11",
            "1_000",
            "1.",
            ".5",
            "-.5",
            "1e3",
            "1.5e-3",
            "6.02E+23",
        ),
        *("190:20:30", "22:22", "-1:30", "20:30.15", ".inf", "-.Inf", "+.INF", ".nan", ".NaN", "0x", "1__0"),
    ],
    "a date": ["2026-11-22", "2026-1-2", "2001-12-14t21:59:43.10-05:00", "2001-12-14 21:59:43.10 -5"],
}


@pytest.mark.parametrize(
    ("text", "kind"), [(t, "") for t in STRINGS] + [(t, k) for k in OTHERS for t in OTHERS[k]]
)
def test_what_a_plain_scalar_reads_as(text: str, kind: str) -> None:
    assert reads_as(text) == kind


@given(st.text("0123456789abcdefxonyest_.:+-~=<ETZ ", max_size=12) | scalars)
def test_a_string_to_us_is_a_string_to_yaml_1_1(text: str) -> None:
    """PyYAML's resolver is YAML 1.1's; 1.2's types are a part of them, but for 0o."""
    if reads_as(text) == "":
        tag = yaml.SafeLoader("").resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # as types-PyYAML has it
        assert tag == "tag:yaml.org,2002:str" or text in ("!", "&", "*")  # which cannot stand plain
