"""Positions, duplicates and bounds of the three document readers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.adapters.specfile.broken import BrokenDocument
from meshpeer.adapters.specfile.json_document import read_json
from meshpeer.adapters.specfile.toml_document import read_toml
from meshpeer.adapters.specfile.yaml_document import read_yaml
from meshpeer.core.jobs.located import Located, Mapping, Place, Scalar, Sequence, place_of

YAML = """\
name: x
tasks:
  a: {run: [echo, "é", 24]}
  b:
    needs:
      - a
      - {task: a, into: y}
"""
JSON = """\
{"name": "x",
\t"tasks": {
\t\t"a": {"run": ["echo", "é", 24]},
  "b": {"needs": ["a",
 {"task": "a"}]}}}
"""
TOML = """\
name = "x"
note = '''
name = "not this"
'''
[tasks.a]
run = ["echo", "é", 24]

[tasks.b] # second
needs = [
  "a",
  {task = "a"},
]
"""


@pytest.mark.parametrize(
    ("document", "path", "place"),
    [
        (read_yaml(YAML), ("name",), Place(1, 1)),
        (read_yaml(YAML), ("tasks", "a", "run"), Place(3, 7)),
        (read_yaml(YAML), ("tasks", "a", "run", 2), Place(3, 24)),
        (read_yaml(YAML), ("tasks", "b", "needs", 0), Place(6, 9)),
        (read_yaml(YAML), ("tasks", "b", "needs", 1, "into"), Place(7, 19)),
        (read_yaml(YAML), ("tasks", "b", "run"), Place(4, 3)),
        (read_json(JSON), ("name",), Place(1, 2)),
        (read_json(JSON), ("tasks", "a", "run", 2), Place(3, 30)),
        (read_json(JSON), ("tasks", "b", "needs", 1), Place(5, 2)),
        (read_toml(TOML), ("name",), Place(1, 1)),
        (read_toml(TOML), ("tasks", "a"), Place(5, 2)),
        (read_toml(TOML), ("tasks", "a", "run", 2), Place(6, 1)),
        (read_toml(TOML), ("tasks", "b", "needs", 1, "task"), Place(9, 1)),
    ],
)
def test_every_value_knows_its_place(document: Located, path: tuple[str | int, ...], place: Place) -> None:
    assert place_of(document, path) == place


@pytest.mark.parametrize(
    ("read", "text", "place", "what"),
    [
        (read_yaml, "a: [1, 2\nb: 3", Place(2, 2), "expected ',' or ']'"),
        (read_yaml, "a: b: c", Place(1, 5), "mapping values are not allowed"),
        (read_yaml, "", Place(1, 1), "the file is empty"),
        (read_yaml, "# only this\n", Place(1, 1), "the file is empty"),
        (read_yaml, "a: 1\n---\nb: 2\n", Place(2, 1), "a second document starts here"),
        (read_yaml, "a: \x07", Place(1, 4), "the character '\\x07' is not allowed"),
        (read_yaml, "x: 1\na: !!python/object/apply:os.system [ls]", Place(2, 4), "the tag"),
        (read_yaml, "a: !secret x", Place(1, 4), "the tag !secret is not supported"),
        (read_yaml, "a: !!int x", Place(1, 4), "'x' can't be read as int"),
        (read_yaml, "? [a]\n: b", Place(1, 3), "a key is a list or a mapping"),
        (read_yaml, "a: &x [*x]", Place(1, 8), "*x contains itself"),
        (read_yaml, "a: *y", Place(1, 4), "nothing is anchored as &y"),
        (read_yaml, "a: {<<: 3}", Place(1, 9), "'<<' merges mappings only"),
        (read_yaml, "[" * 100_000, Place(1, 33), "it nests deeper than 32"),
        (read_json, "", Place(1, 1), "the file is empty"),
        (read_json, '{"a": }', Place(1, 7), "a value is missing here"),
        (read_json, '{"a": 1,}', Place(1, 9), "a key in double quotes is missing here"),
        (read_json, '{"a" 1}', Place(1, 6), "':' is missing here"),
        (read_json, "[1 2]", Place(1, 4), "',' is missing here"),
        (read_json, '{"a": "b', Place(1, 7), "unterminated string"),
        (read_json, "{} x", Place(1, 4), "something follows the end"),
        (read_json, "[NaN]", Place(1, 2), "a value is missing here"),
        (read_json, "[1" + "0" * 5_000 + "]", Place(1, 2), "this number is too long"),
        (read_json, "[" * 100_000, Place(1, 33), "it nests deeper than 32"),
        (read_toml, "a = ", Place(1, 5), "invalid value"),
        (read_toml, "a = 1\na = 2", Place(2, 6), "cannot overwrite a value"),
        (read_toml, "x = 1\na = 2024-01-01", Place(2, 1), "a is a date or time"),
        (read_toml, "a = 0x" + "f" * 5_000, Place(1, 1), "the number of a is too long"),
        (read_toml, "a = " + "[" * 40 + "]" * 40, Place(1, 1), "it nests deeper than 32"),
        (read_toml, "a = " + "[" * 100_000, None, "it nests deeper than 32"),
    ],
)
def test_what_is_no_document_is_refused_at_its_place(
    read: Callable[[str], Located], text: str, place: Place | None, what: str
) -> None:
    with pytest.raises(BrokenDocument) as caught:
        read(text)
    assert caught.value.place == place
    assert what in caught.value.what


def test_a_billion_laughs_are_refused_before_they_cost_anything() -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(BrokenDocument, match="more than 2,000,000 values"):
        read_yaml("\n".join(lines))


def test_aliases_and_merges_are_read() -> None:
    document = read_yaml("base: &b {x: 1, y: 2}\nown: {<<: *b, y: 3}\nlist: {<<: [{x: 4}, *b]}\nsame: *b\n")
    assert plain(document) == {
        "base": {"x": 1, "y": 2},
        "own": {"x": 1, "y": 3},
        "list": {"x": 4, "y": 2},
        "same": {"x": 1, "y": 2},
    }


@pytest.mark.parametrize("read", [read_yaml, read_json])
def test_keys_that_stand_twice_are_kept_for_the_parser_to_refuse(read: Callable[[str], Located]) -> None:
    document = read('{"a": 1, "a": 2}')
    assert isinstance(document, Mapping)
    assert [entry.key.value for entry in document.entries] == ["a", "a"]


@pytest.mark.parametrize(
    ("document", "value", "written"),
    [
        (read_yaml("1.10"), 1.1, "1.10"),
        (read_yaml("0x1F"), 31, "0x1F"),
        (read_yaml("yes"), True, "yes"),
        (read_yaml("'yes'"), "yes", "yes"),
        (read_yaml("!!str 24"), "24", "24"),
        (read_yaml("~"), None, "~"),
        (read_yaml("2024-01-01"), "2024-01-01", "2024-01-01"),
        (read_json("1.10"), 1.1, "1.10"),
        (read_json("-3"), -3, "-3"),
        (read_json('"\\u00e9\\ud83d\\ude00"'), "é😀", "é😀"),
    ],
)
def test_scalars_keep_what_was_written(document: Located, value: object, written: str) -> None:
    assert isinstance(document, Scalar)
    assert (document.value, type(document.value), document.written) == (value, type(value), written)


def test_toml_keeps_the_digits_of_a_float() -> None:
    document = read_toml("a = 1.10\nb = true")
    assert isinstance(document, Mapping)
    scalars = [entry.value for entry in document.entries if isinstance(entry.value, Scalar)]
    assert [(scalar.value, scalar.written) for scalar in scalars] == [(1.1, "1.10"), (True, "true")]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(value=values, indent=st.sampled_from([None, 1, "\t"]), ascii_only=st.booleans())
def test_json_reads_what_json_writes(value: object, indent: int | str | None, ascii_only: bool) -> None:
    document = read_json(json.dumps(value, indent=indent, ensure_ascii=ascii_only))
    assert plain(document) == value
    assert document.size == count(value)


@settings(max_examples=100, deadline=None)
@given(value=values, flow=st.booleans())
def test_yaml_reads_what_yaml_writes(value: object, flow: bool) -> None:
    document = read_yaml(yaml.safe_dump(value, default_flow_style=flow, allow_unicode=False))
    assert plain(document) == value


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet="ab:{}[]\"'\\,-?&*!|>#%=\n \t1\0\ud800é") | st.text())
@pytest.mark.parametrize("read", [read_yaml, read_json, read_toml])
def test_no_text_makes_a_reader_crash(read: Callable[[str], Located], text: str) -> None:
    with contextlib.suppress(BrokenDocument):
        assert read(text.encode("utf-8", "replace").decode("utf-8")).size >= 1


def plain(node: Located) -> object:
    if isinstance(node, Mapping):
        return {entry.key.value: plain(entry.value) for entry in node.entries}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return node.value


def count(value: object) -> int:
    """Nodes of a value, keys left out."""
    if isinstance(value, dict):
        return 1 + sum(count(item) for item in value.values())
    return 1 + sum(count(item) for item in value) if isinstance(value, list) else 1
