"""Options that take JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from dalsegno.cli.json_arguments import json_object, json_objects, json_value
from dalsegno.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}), ("{}", {}), (None, {}), ('{"ä": "ü"}', {"ä": "ü"})],
)
def test_an_object_is_read(text: str | None, value: object) -> None:
    assert json_object("--args", text) == value


def test_an_object_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "inputs.json").write_text('{\n  "a": 1\n}')
    assert json_object("--args", f"@{tmp_path / 'inputs.json'}") == {"a": 1}


def test_what_is_no_json_is_refused_with_its_place() -> None:
    with pytest.raises(UsageError) as refusal:
        json_object("--overrides", '{"checkpoint.a": "x" "y"}')
    lines = str(refusal.value).splitlines()
    assert lines[0] == "--overrides is not JSON: line 1, column 22: expecting ',' delimiter"
    assert lines[1] == '  {"checkpoint.a": "x" "y"}'
    assert lines[2].index("^") == lines[1].index('"y"')
    assert refusal.value.fields == {"option": "--overrides", "line": "1", "column": "22"}


def test_the_place_of_what_is_wrong_in_a_long_text_is_shown() -> None:
    text = '{"a": "' + "x" * 500 + '", }'
    with pytest.raises(UsageError) as refusal:
        json_object("--args", text)
    _, shown, pointer = str(refusal.value).splitlines()[:3]
    assert len(shown) < 70
    assert shown[pointer.index("^")] == "}" or "}" in shown


def test_a_mistake_in_a_file_names_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "inputs.json"
    file.write_text('{\n  "a": nope\n}')
    with pytest.raises(
        UsageError, match=r"--args \(.*inputs\.json\) is not JSON: line 2, column 8: a value was expected"
    ):
        json_object("--args", f"@{file}")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[1]", "not a list"),
        ("3", "not a number"),
        ("null", "not null"),
        ('{"a": 1, "a": 2}', 'the name "a" is given twice'),
        ('{"a": NaN}', "NaN is no JSON value"),
        ("{'a': 1}", "JSON texts are in double quotes"),
        ("{a: 1}", "the shell may have taken yours"),
        ("@nowhere.json", "cannot be read: No such file"),
        ("", "column 1: a value was expected"),
    ],
)
def test_what_is_no_object_is_refused(text: str, part: str) -> None:
    with pytest.raises(UsageError) as refusal:
        json_object("--args", text)
    assert part in str(refusal.value)


def test_a_bare_text_is_told_of_its_quotes() -> None:
    with pytest.raises(UsageError) as refusal:
        json_value("--value", "approved")
    assert "'\"approved\"'" in str(refusal.value)


@pytest.mark.parametrize(("text", "hint"), [("approved", '"approved"'), ("{a: 1}", "JSON names are in double quotes")])
def test_who_types_at_a_prompt_is_told_of_no_shell(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as refusal:
        json_value("the answer", text, typed=True)
    assert str(refusal.value).endswith(hint)
    assert "shell" not in str(refusal.value)


def test_objects_of_objects_name_the_entry_that_is_none() -> None:
    assert json_objects("--input-overrides", '{"train": {"rate": 1}}') == {"train": {"rate": 1}}
    with pytest.raises(UsageError, match='the entry "train" takes an object'):
        json_objects("--input-overrides", '{"train": 0.1}')
