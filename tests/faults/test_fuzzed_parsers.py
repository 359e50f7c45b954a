"""Row 21: whatever a file says, each parser of ours reads it or refuses it with InputError."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
import pytest
import torch
from faults.campaign import Outcome, Row
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from run_records import record
from safetensors.torch import save

from kravl.aggregate import group_runs, read_runs
from kravl.approximation.ledger import Ledger
from kravl.checkpoint import SafeCheckpointIO, latest
from kravl.data import catalog
from kravl.data.class_list import read_class_list
from kravl.data.cub200 import Cub200
from kravl.data.list_files import ListFiles
from kravl.data.remote_file import remote_files
from kravl.data.split_file import SplitFile
from kravl.data.table import Table
from kravl.data.voc2007 import _objects
from kravl.errors import InputError
from kravl.foreign_text import parse_yaml
from kravl.interpolations import refuse_foreign
from kravl.record import find_run
from kravl.restore import saved_config
from kravl.tables import table
from kravl.trace import read_trace

EXAMPLES = 40  # of each parser in the default suite
SPLIT = {"train": [["a.png", 0, "cat"], ["b.png", 1, "dog"]], "val": [], "test": [["c.png", 0, "cat"]]}
CARD = (
    "title: x\nfiles: [{name: a.zip, urls: [x], unpack: true, md5: null}]\n"
    "folders: [a]\nneeds: [b]\nimages: {train: 2}\n"
)


@dataclass(frozen=True)
class Parser:
    """Reads the ``file`` of a folder; ``example`` is what it expects there."""

    file: str
    example: bytes
    read: Callable[[Path], object]


def _card(folder: Path) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "folder", lambda: folder)
        return remote_files(catalog.card("a"))


def _runs(folder: Path) -> object:
    groups = group_runs(read_runs(folder)[0])
    return [[table([group], every_set=True), *map(group.stat, group.names)] for group in groups]


def _spectra(name: str) -> bytes:
    tensors = {"steps": torch.tensor([0, 1]), "quantities": torch.ones(2, 1, 1)}
    return save(tensors, {"kravl": json.dumps({"sites": ["a"], "quantities": [name]})})


def _saved_config(folder: Path) -> object:
    (folder / "metrics.json").write_text("{}")
    return saved_config(find_run(str(folder)), {})


def _checkpoint(folder: Path) -> object:
    file, place = folder / "manifest.json", folder / "step=1.ckpt"
    place.mkdir()
    file.replace(place / file.name)
    for name, content in {"tensors.safetensors": save({}), "state.json": b"{}"}.items():
        (place / name).write_bytes(content)
    SafeCheckpointIO().load_checkpoint(place)
    return latest(folder)


def _state(folder: Path) -> object:
    from kravl.checkpoint import _sha256

    (folder / "tensors.safetensors").write_bytes(save({"0": torch.ones(1)}))
    names = ("tensors.safetensors", "state.json")
    told = {name: {"bytes": (folder / name).stat().st_size, "sha256": _sha256(folder / name)} for name in names}
    (folder / "manifest.json").write_text(json.dumps(told))
    return SafeCheckpointIO().load_checkpoint(folder)


def _birds(folder: Path) -> object:
    lists = {"image_class_labels.txt": "1 1", "train_test_split.txt": "1 1", "classes.txt": "1 001.Cat"}
    for name, content in lists.items():
        if not (folder / name).exists():
            (folder / name).write_text(content)
    (folder / "images").mkdir()
    return Cub200(str(folder)).split("train")


PARSERS = {
    "split file": Parser("a.json", json.dumps(SPLIT).encode(), lambda d: SplitFile("a", str(d), str(d / "a.json"))),
    "table": Parser("a.csv", b"path,label,split\na.png,cat,train\n", lambda d: Table(str(d / "a.csv"))),
    "tab-separated table": Parser("a.tsv", b"path\tlabel\na.png\tcat\n", lambda d: Table(str(d / "a.tsv"))),
    "table of objects": Parser("a.jsonl", b'{"path": "a.png", "label": 1}\n', lambda d: Table(str(d / "a.jsonl"))),
    "class list": Parser("a.csv", b"a,cat\nb,dog\n", lambda d: read_class_list(str(d / "a.csv"))),
    "list of images": Parser(
        "train.txt", b"cat/1.jpg\ndog/2.jpg\n", lambda d: ListFiles("a", str(d), {"train": "train.txt"}).split("train")
    ),
    "list of birds": Parser("images.txt", b"1 001.Cat/a.jpg\n", _birds),
    "labels of birds": Parser(
        "image_class_labels.txt", b"1 1\n", lambda d: (d / "images.txt").write_text("1 a") and _birds(d)
    ),
    "annotation": Parser(
        "a.xml",
        b"<a><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object></a>",
        lambda d: _objects(d / "a.xml"),
    ),
    "card": Parser("a/card.yaml", CARD.encode(), _card),
    "config": Parser("config.yaml", b"name: a\nshots: 4\noptim: {lr: 1e-3}\ntargets: [a]\n", _saved_config),
    "metrics": Parser("metrics.json", json.dumps(record()).encode(), _runs),
    "spectra": Parser("spectra.safetensors", _spectra("rank"), lambda d: read_trace(d / "spectra.safetensors")),
    "ledger": Parser("a.jsonl", b'{"key": "a"}\n{"key": "b"}\n', lambda d: Ledger(d / "a.jsonl")),
    "manifest": Parser("manifest.json", b'{"tensors.safetensors": {"bytes": 1, "sha256": ""}}', _checkpoint),
    "state": Parser("state.json", b'{"pairs": [["a", {"tensor": "0"}], [1, {"tuple": [1.5]}]]}', _state),
}
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner))


@st.composite
def contents(draw: st.DrawFn, example: bytes) -> bytes:
    """Anything, the example with parts replaced, or the JSON that it is with another value at some place."""
    kind = draw(st.sampled_from(("changed", "bytes", "value", "nested")))
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    if kind == "nested":
        return draw(st.sampled_from((b"[", b'{"a":', b"- ", b"<a>", b"9"))) * draw(st.integers(0, 20_000))
    try:
        value = json.loads(example)
    except ValueError:
        kind = "changed"
    if kind == "value":
        return json.dumps(_planted(draw, value)).encode()
    content = bytearray(example)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        content[start : start + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(content)


def _planted(draw: st.DrawFn, value: object) -> object:
    """``value`` with something else at one place, however deep."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        return {**value, key: _planted(draw, value[key])}
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], _planted(draw, value[place]), *value[place + 1 :]]
    return draw(VALUES)


def attack(parser: Parser, examples: int) -> None:
    """Read ``examples`` contents, the same ones every time. Raises what is not InputError."""

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(contents(parser.example))
    def read(content: bytes) -> None:
        with TemporaryDirectory() as name:
            folder = Path(name) / "seed1"
            (folder / parser.file).parent.mkdir(parents=True)
            (folder / parser.file).write_bytes(content)
            try:
                parser.read(folder)
            except InputError as error:
                assert len(str(error)) < 5000, "an endless message"

    read()


def _problems(examples: int) -> Iterator[str]:
    for name, parser in PARSERS.items():
        try:
            attack(parser, examples)
        except (
            ArithmeticError,
            AssertionError,
            AttributeError,
            LookupError,
            OSError,
            RuntimeError,
            TypeError,
        ) as error:
            yield f"{name}: {type(error).__name__}: {error}"
        except ValueError as error:  # among them InputError itself, where nothing refuses it
            yield f"{name}: {type(error).__name__}: {error}"


def run(count: int, folder: Path) -> Outcome:
    """``count`` contents of each parser."""
    problems = list(_problems(count))
    return Outcome(count * len(PARSERS), f"{len(PARSERS)} parsers, {len(problems)} other errors", problems)


ROW = Row(21, "fuzzed files", "every parser, 0 errors but InputError", 3000, EXAMPLES, run)


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_reads_a_file_or_refuses_it(name: str) -> None:
    attack(PARSERS[name], EXAMPLES)


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(st.text(alphabet="${}:.,[]'\"abHOME_ ", max_size=40))
def test_no_text_gets_past_the_check_of_interpolations_with_another_resolver(text: str) -> None:
    hypothesis.assume("${" in text)
    try:
        refuse_foreign({"a": text}, "it")
    except InputError:
        return
    assert ":" not in text.replace(" ", "").split("${", 1)[1].split("}", 1)[0] or "oc.env" in text or "images" in text


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(st.text(alphabet="&*abc[]{}:,- \n!'\"", max_size=80))
def test_any_yaml_is_read_or_refused(text: str) -> None:
    try:
        parse_yaml(text, "it")
    except InputError as error:
        assert "\n" not in str(error)
