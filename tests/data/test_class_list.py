"""A user's own class names and descriptions replace those of a set; what does not fit is named with the nearest."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from kravl.data.classes import name_classes
from kravl.data.source import readable_names
from kravl.data.sources.class_half import ClassHalf
from kravl.data.sources.folder import ImageFolder
from kravl.runtime.errors import InputError


@pytest.fixture
def source(make_tree: Callable[..., Path]) -> ImageFolder:
    return ImageFolder(str(make_tree("train", {"n01_cat": 1, "n02": 1, "old_dog": 1}) / "train"))


def test_names_are_the_given_ones_and_cleaned_where_none_is_given(source: ImageFolder, tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text('n02, "hen, of  the_yard"\n\nn01_cat,größere Katze\n')

    name_classes(source, str(tmp_path / "names.csv"))

    assert source.class_names == ("größere Katze", "hen, of the yard", "old dog")
    assert source.class_ids == ("n01_cat", "n02", "old_dog")


def test_without_a_file_names_stay(source: ImageFolder) -> None:
    name_classes(source, None)

    assert source.class_names == ("n01 cat", "n02", "old dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n03,hen", r"unknown label in .*: class of folder 'n03': did you mean 'n02'"),
        ("n02", r"line 1: 'n02' is not label,name"),
        ("n02,hen\nn02,cock", r"line 2: the label 'n02' is there already"),
        ("n02,hen,cock", r"line 1: 'n02,hen,cock' is not label,name"),
        ("n02, ", r"line 1: 'n02,' is not label,name"),
        ('n02,hen\nold_dog,"dog\nn01_cat,cat', r"names\.csv, line 2: the row does not end .*up to line 3"),
        ('n02,"hen" house', r"names\.csv, line 1: the row does not end"),
        ("n02,he\u2028n", r"line 1: the name 'he\\u2028n' holds a control character"),
        ("n02,_", r"names\.csv: the name of class 1, '_', is empty in a prompt"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, message: str, source: ImageFolder, tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text(text)

    with pytest.raises(InputError, match=message):
        name_classes(source, str(tmp_path / "names.csv"))


def test_classes_of_one_name_are_told(source: ImageFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "names.csv").write_text("n01_cat,big__missile\nn02, big missile\n")
    (tmp_path / "own.json").write_text('{"n01_cat": ["x"], "n02": ["y"], "old dog": ["y"]}')

    name_classes(source, str(tmp_path / "names.csv"))

    assert "'n01_cat' is 'big missile' and 'n02' is 'big missile'; data.class_names=FILE" in caplog.text
    caplog.clear()
    name_classes(source, str(tmp_path / "names.csv"), str(tmp_path / "own.json"))
    assert "one list of descriptions" in caplog.text
    assert "'n02' is 'big missile' and 'old_dog' is 'old dog'; data.descriptions=FILE" in caplog.text
    assert "n01_cat" not in caplog.text


@pytest.mark.parametrize("name", ["", " ", "__", "\N{ZERO WIDTH SPACE}", "\N{NO-BREAK SPACE}_"])
def test_a_name_that_a_prompt_would_not_show_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"set: the name of class 1, .* is empty in a prompt; give it a name"):
        readable_names("set", ["cat", name])


def test_a_set_with_an_empty_class_name_is_refused(make_tree: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"folder: the name of class 0, '_', is empty in a prompt"):
        ImageFolder(str(make_tree("train", {"_": 1, "cat": 1}) / "train"))


def test_descriptions_are_found_by_label_or_by_name(
    source: ImageFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = {
        "Old  dog": ["grey.", "it is {old}."],
        "n02": ["clucks."],
        "n01 CAT": ["purrs."],
        "bus": ["x"],
        "hen": ["y"],
    }
    (tmp_path / "own.json").write_text("\ufeff" + json.dumps(found))
    (tmp_path / "names.csv").write_text("n02,hen")
    caplog.set_level("INFO")

    name_classes(source, str(tmp_path / "names.csv"), str(tmp_path / "own.json"))

    assert source.prompts == (("purrs.",), ("clucks.",), ("grey.", "it is {old}."))
    assert "own.json: 2 descriptions are of no class of folder: 'bus', 'hen'" in caplog.text
    assert [len(half.prompts) for half in (ClassHalf(source, "base"), ClassHalf(source, "new"))] == [2, 1]
    (record,) = source.prompt_record()
    assert record.startswith("4 descriptions, sha256 ")
    source.descriptions = None
    assert source.prompt_record() == ["a photo of a {}."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"n02": ["x"], "cat": ["y"]}',
            "no descriptions of 2 of 3 classes of folder: 'n01 cat', nearest 'cat'; 'old dog'",
        ),
        ('{"n01_cat": ["x"], "n02": ["x"], "old dog": ["x"], "Old_dog": ["y"]}', "'old dog' and 'Old_dog' are both"),
        ('{"n02": ["x"], "n02": ["y"]}', "'n02' comes twice in one object"),
        ('{"n02": "x"}', "'n02' has 'x', not a list of sentences"),
        ('{"n02": []}', "'n02' has '[]', not a list of sentences"),
        ('{"n02": ["x", " "]}', "'n02', sentence 2: ' ' is empty in a prompt"),
        ('{"n02": ["x", "\\u200b\\u3164"]}', "sentence 2: '\\u200b\u3164' is empty in a prompt"),
        ('{"n02": ["a {}."]}', "'n02', sentence 1: 'a {}.' is a template"),
        ("[]", "is not a JSON object of class name: list of sentences"),
        ("{", "is not JSON"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(text: str, message: str, source: ImageFolder, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(text)

    with pytest.raises(InputError, match=re.escape(message)):
        name_classes(source, None, str(tmp_path / "own.json"))
