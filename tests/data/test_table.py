"""A table of paths, labels and splits becomes a data set; what is wrong in it is named with its line."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kravl.data.sources.table import Table
from kravl.runtime.errors import InputError

ROWS = [
    ("a/cat/0.png", "cat", "train"),
    ("a/cat/1.png", "cat", "test"),
    ("a/hot dog/0.png", "hot_dog", "train"),
    ("a/hot dog/1.png", "hot_dog", "val"),
]


@pytest.fixture
def root(make_tree: Callable[..., Path]) -> Path:
    return make_tree("a", {"cat": 2, "hot dog": 2})


def csv_text(separator: str = ",") -> str:
    return "\n".join(separator.join(row) for row in [("path", "label", "split"), *ROWS])


def json_lines() -> str:
    return "\n\n".join(json.dumps(dict(zip(("path", "label", "split"), row, strict=True))) for row in ROWS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", csv_text()),
        ("LIST.CSV", "\ufeff" + csv_text().replace("\n", "\r\n")),
        ("list.csv", csv_text(", ")),
        ("list.csv", csv_text().replace("a/hot dog/0.png", '"a/hot dog/0.png"').replace(",val", ",validation")),
        ("list.tsv", csv_text("\t")),
        ("list.jsonl", json_lines()),
    ],
)
def test_a_table_says_which_images_there_are(name: str, text: str, root: Path) -> None:
    (root / name).write_bytes(text.encode())

    source = Table(str(root / name))

    assert source.class_names == ("cat", "hot dog")
    assert source.splits == ("train", "val", "test")
    assert source.split("train").names == ("a/cat/0.png", "a/hot dog/0.png")
    assert [source.split(split).labels for split in source.splits] == [(0, 1), (1,), (0,)]
    assert source.split("val").image(0).size == (10, 12)
    assert source.split("val").file(0) == root / "a/hot dog/1.png"


def test_paths_are_relative_to_the_table_or_to_a_root(root: Path, tmp_path: Path) -> None:
    table = tmp_path / "lists/a.csv"
    table.parent.mkdir()
    table.write_text(csv_text())

    assert Table(str(table), root=str(root)).split("test").image(0).size == (10, 12)
    with pytest.raises(InputError, match=r"cannot read .*lists/a/cat/1\.png: no such file"):
        Table(str(table)).split("test").image(0)


def test_without_a_column_of_splits_every_image_is_trained_on_and_labels_may_be_numbers(root: Path) -> None:
    (root / "list.csv").write_text("label,path,note\n7,a/cat/0.png,x\n10,a/cat/1.png,y\n")
    (root / "list.jsonl").write_text('{"path": "a/cat/0.png", "label": 7}\n{"path": "a/cat/1.png", "label": 10}')

    for name in ("list.csv", "list.jsonl"):
        source = Table(str(root / name))
        assert (source.splits, source.class_names) == (("train",), ("10", "7"))
        assert source.split("train").labels == (1, 0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "t.csv",
            "file,label\na.png,cat",
            r"must name the column 'path'; it names 'file, label'; data\.source\.columns\.path=\.\.\. says otherwise",
        ),
        ("t.csv", "path;label\na.png;cat", r"it names 'path;label'; data\.source\.separator=semicolon says otherwise"),
        ("t.tsv", "path,label\na.png,cat", r"it names 'path,label'; data\.source\.separator=comma says otherwise"),
        ("t.csv", "path,label\n..\\a.png,cat", r"line 2: '\.\./a\.png' leaves the image folder"),
        ("t.csv", "path,label\nC:\\x\\a.png,cat", r"line 2: 'C:.*a\.png' names a drive of Windows"),
        ("t.csv", "path,label\n\\\\host\\x\\a.png,cat", r"line 2: .*host.*a\.png' names a drive of Windows"),
        ("t.csv", "", r"the first line must name the column 'path'; it names ''"),
        ("t.csv", "path,label\n", r"table: no classes"),
        ("t.csv", "path,label\na.png,\n", r"line 2: label is ''; it must be text"),
        ("t.csv", "path,label\na.png\n", r"line 2: label is None; it must be text"),
        ("t.csv", "path,label,split\na.png,cat,tets", r"unknown split in .*line 2: 'tets': did you mean 'test'"),
        ("t.csv", "path,label\n/etc/a.png,cat", r"line 2: '/etc/a.png' leaves the image folder"),
        ("t.csv", "path,label\na.png,x\nb/../../a.png,cat", r"line 3: 'b/../../a.png' leaves the image folder"),
        ("t.csv", "path,label\na.png,x\n./a.png,cat", r"line 3: a.png is in line 2 already"),
        ("t.csv", "path,label\na.png,hot dog\nb.png,Hot_Dog", r"duplicate class names: 'Hot_Dog' and 'hot dog'"),
        ("t.csv", b"path,label\na.png,gr\xf6\xdfe", r"t.csv is not UTF-8: invalid start byte at byte 19"),
        ("t.csv", 'path,label\na.png,x\n\nb.png,"y\nc.png,x\n', r"t\.csv, line 4: the row does not end.*up to line 5"),
        ("t.csv", 'path,label\n"a.png,x\nb.png,"y" z\n', r"t\.csv, line 2: the row does not end .*'\"'.*up to line 3"),
        ("t.csv", f"path,label\na.png,{'x' * 140_000}", r"line 2: .*field larger than field limit \(131072\)"),
        ("t.csv", "path,label,label\na.png,x,y", r"the first line names the column 'label' more than once"),
        ("t.csv", "path,label\na,b.png,x", r"line 2: 3 fields, of which the first line names 2"),
        ("t.csv", "path,label,split\na.png,x", r"line 2: split is None"),
        ("t.jsonl", '{"path": "a.png", "label": "x", "label": "y"}', r"line 1, is not JSON: 'label' comes twice"),
        ("t.jsonl", '{"path": "a.png", "label": "x"}\n{"path"', r"line 2, is not JSON"),
        ("t.jsonl", '["a.png", "x"]', r"line 1: .* is not an object with path and label"),
        ("t.jsonl", '{"path": "a.png", "label": true}', r"line 1: label is True; it must be text"),
        ("t.xlsx", "", r"unknown ending of a table '.xlsx'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(name: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(InputError, match=message):
        Table(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", 'path,note,label\na.png,"one ""line""\nand another",x\nb.png,5" wide,y,\n'),
        ("t.jsonl", '{"path": "a.png", "note": "one\u2028two", "label": "x"}\r\n{"path": "b.png", "label": "y"}\n'),
    ],
)
def test_a_field_may_hold_line_breaks_and_quotes(
    name: str, text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_bytes(text.encode())

    samples = Table(str(tmp_path / name)).split("train")

    assert (samples.names, samples.labels) == (("a.png", "b.png"), (0, 1))
    assert ("line 2: a field in quotes goes on in the next line" in caplog.text) == (name == "t.csv")


@pytest.mark.parametrize(
    "text",
    [
        'path,label,note\na.png,x,"big\nb.png,y,small"\n',
        'path,label,note\na.png,x,"big\nb.png,y,3"" high\nc.png,y,small"\n',
        'id,path,label,note\n1,a,x,"big\n2,b,y,small"\n',
        'path,label,split,note\na.png,x,"train,\nb.png,y,test",big\n',
        'path,label,note\n"a.png,x,big\nb.png",y,small\n',
    ],
)
def test_two_quotes_that_are_left_open_do_not_make_one_row_of_two(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)

    with pytest.raises(InputError, match=r"t.csv, line 2: a field in quotes goes on in the next line, .*b[.,]"):
        Table(str(tmp_path / "t.csv"))


@pytest.mark.parametrize("mark", ["\n", "\r", "\r\n"])
def test_a_path_that_ends_in_a_line_break_within_its_quotes_is_refused(mark: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(f'path,label\n"a.png{mark}",x\n'.encode())

    with pytest.raises(InputError, match=r"t.csv, line 2: a field in quotes goes on in the next line, ''; close it"):
        Table(str(tmp_path / "t.csv"))


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*list\.csv: No such file"):
        Table(str(tmp_path / "list.csv"))


def test_a_forgotten_file_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"no table is given; pass data.file="):
        Table(None)


@pytest.mark.parametrize(
    ("name", "text", "settings"),
    [
        ("t.csv", "path;label\na/cat/0.png;cat\na/hot dog/0.png;hot_dog", {"separator": ";"}),
        ("t.csv", "path\tlabel\na/cat/0.png\tcat\na/hot dog/0.png\thot_dog", {"separator": "tab"}),
        ("t.txt", "path\tlabel\na/cat/0.png\tcat\na/hot dog/0.png\thot_dog", {}),
        (
            "t.csv",
            "Datei,Art\na/cat/0.png,cat\na/hot dog/0.png,hot_dog",
            {"columns": {"path": "Datei", "label": "Art"}},
        ),
        ("t.csv", "path,1\na/cat/0.png,cat\na/hot dog/0.png,hot_dog", {"columns": {"label": 1}}),
        (
            "t.jsonl",
            '{"f": "a/cat/0.png", "label": "cat"}\n{"f": "a/hot dog/0.png", "label": "hot_dog"}',
            {"columns": {"path": "f"}},
        ),
        ("t.csv", "path,label\na\\cat\\0.png,cat\n.\\a\\hot dog\\0.png,hot_dog", {}),
        ("t.csv", "path,label\nROOT/a/cat/0.png,cat\nROOT/a/hot dog/0.png,hot_dog", {}),
    ],
)
def test_tables_of_other_programs_and_systems_are_read(
    name: str, text: str, settings: dict[str, Any], root: Path
) -> None:
    (root / name).write_text(text.replace("ROOT", str(root)))

    samples = Table(str(root / name), **settings).split("train")

    assert samples.names == ("a/cat/0.png", "a/hot dog/0.png")
    assert [samples.image(i).size for i in range(2)] == [(10, 12)] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": {"split": "fold"}}, r"must name the column 'fold'"),
        ({"columns": {"class": "label"}}, r"unknown column of a table 'class': did you mean 'label'"),
        ({"separator": "ab"}, r"data\.source\.separator is 'ab'; it must be one character, tab or space"),
        ({"test_share": 0.0}, r"test_share is 0\.0; it must be between 0 and 1"),
    ],
)
def test_a_setting_that_does_not_fit_the_table_is_named(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\na.png,cat")

    with pytest.raises(InputError, match=message):
        Table(str(tmp_path / "t.csv"), **settings)


def test_names_are_found_in_the_form_of_unicode_that_the_files_have(tmp_path: Path) -> None:
    nfc, nfd = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    Image.new("RGB", (3, 4)).save(tmp_path / f"{nfd}.png")
    (tmp_path / "a\\b.png").write_bytes((tmp_path / f"{nfd}.png").read_bytes())  # a legal name outside of Windows
    (tmp_path / "t.csv").write_text(f"path,label\n{nfc}.png,{nfc}\na\\b.png,{nfd}\n", encoding="utf-8")

    source = Table(str(tmp_path / "t.csv"))

    assert source.class_ids == (nfc,)
    assert [source.split("train").image(i).size for i in range(2)] == [(3, 4)] * 2


def test_a_table_without_test_rows_holds_out_a_share(tmp_path: Path) -> None:
    rows = [f"{label}{i}.png,{label}" for label in "ab" for i in range(10)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]))

    source = Table(str(tmp_path / "t.csv"), test_share=0.3)
    parts = [source.split(split) for split in ("train", "test")]

    assert source.splits == ("train", "test")
    assert [len(part) for part in parts] == [14, 6]
    assert len({name for part in parts for name in part.names}) == 20
    assert source.split_sha256(parts[0]) != parts[0].sha256()


def test_validation_rows_are_tested_on_where_no_row_is_test(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.csv").write_text("path,label,split\na.png,x,train\nb.png,x,train\nc.png,x,dev\n")
    caplog.set_level("INFO")

    source = Table(str(tmp_path / "t.csv"), test_share=0.5)

    assert {split: source.split(split).names for split in source.splits} == {
        "train": ("a.png", "b.png"),
        "test": ("c.png",),
    }
    assert caplog.messages == [f"table: no row of {tmp_path}/t.csv is test; those of val are tested on"]
    assert not source.divided
