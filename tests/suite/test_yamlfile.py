from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from optbench.suite.yamlfile import YamlError, read, read_text


def test_numbers_follow_yaml_1_2(tmp_path):
    source = read_text("a: 1e-3\nb: 1.0e-6\nc: no\nd: 007\ne: .5\nf: -3\ng: 2001-01-01\n", path=tmp_path)
    assert source.data == {"a": 1e-3, "b": 1e-6, "c": "no", "d": 7, "e": 0.5, "f": -3, "g": "2001-01-01"}


def test_every_key_knows_its_line(tmp_path):
    source = read_text("a: 1\nb:\n  - x: 2\n    y: 3\n", path=tmp_path)
    assert source.line(("b", 0, "y")) == 4
    assert source.line(("b", 0, "missing")) == 3
    assert source.line(("nothing",)) == 1


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: !!python/object/apply:os.system ['true']", 2, "python/object"),
        ("a: 1\nb: [1\nc: 2", 3, "not valid YAML"),
        ("a: 1\na: 2", 2, "twice"),
        ("? [1, 2]\n: 3", 1, "a key must be a word"),
        ("a: &a [*a]", 1, "nested deeper"),
        ("[" * 5000, 1, "nested too deep"),
        ("a: \x00", 1, "not valid YAML"),
        ("a: !!int one", 1, "no int"),
        ("a: !!binary aGVsbG8=", 1, "not allowed"),
    ],
)
def test_what_a_suite_has_no_use_for_is_refused_with_its_line(tmp_path, text, line, words):
    with pytest.raises(YamlError, match=words) as caught:
        read_text(text, path=tmp_path)
    assert caught.value.line == line


def test_alias_bomb_is_refused_before_it_expands(tmp_path):
    levels = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    levels += [f"{chr(98 + k)}: &{chr(98 + k)} [{','.join(['*' + chr(97 + k)] * 9)}]" for k in range(9)]
    with pytest.raises(YamlError, match="aliases expand"):
        read_text("\n".join(levels), path=tmp_path)


def test_large_and_binary_files_are_refused(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"a: " + b"x" * 2**20)
    with pytest.raises(YamlError, match="at most"):
        read(path)
    path.write_bytes(b"a: 1\nb: \xff\xfe")
    with pytest.raises(YamlError, match="UTF-8") as caught:
        read(path)
    assert caught.value.line == 2


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(categories=["Ll"]), min_size=1, max_size=8), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(PLAIN)
def test_plain_data_survives_a_round_trip(data):
    text = yaml.safe_dump({"data": data})
    back = read_text(text, path=None).data["data"]
    assert back == data or (isinstance(data, float) and math.isclose(back, data))
