"""kravl from code: the same run as the command's, from folders, lists and data sets; saved, loaded and pickled."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

import kravl
from kravl import FewShotModel, InputError
from kravl.api.given import as_image, each, listed, pairs, write_folders, write_labels
from kravl.api.settings import backbone_settings, compose_run, data_settings
from kravl.data.classes import read_class_list
from kravl.data.tree import find_images
from kravl.run.train import train

SETTINGS = {
    "split_protocol": "official",
    "optim.epochs": 1,
    "optim.lr": 3e-3,
    "loading.batch_size": 8,
    "loading.min_batches": 2,
    "cache_root": None,
    "trainer.accelerator": "cpu",
}
CHOSEN: dict[str, Any] = {"model": "kravl-tiny", "shots": 4, "settings": SETTINGS, "quiet": True}


class Arrays(Dataset):
    """Pairs of uint8 arrays and the number of the class, as torchvision's sets with their class names."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.classes = sorted({file.parent.name for file in files})

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        file = self.files[index]
        return np.asarray(Image.open(file).convert("RGB")), self.classes.index(file.parent.name)


def images_of(folder: Path) -> tuple[list[Path], list[str]]:
    files = sorted(folder.rglob("*.png"))
    return files, [file.parent.name for file in files]


@pytest.fixture(scope="module")
def fitted(glyphs: Path, tmp_path_factory: pytest.TempPathFactory) -> FewShotModel:
    out = tmp_path_factory.mktemp("runs")
    return kravl.fit(glyphs / "glyphs/train", test=glyphs / "glyphs/test", out=out, **CHOSEN)


def test_a_fit_is_the_run_of_the_command(fitted: FewShotModel, glyphs: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "backbone": "kravl_tiny", "method": "kra", "shots": 4, "runs": tmp_path, "tracking": "none"}
    folders = {"data.root": glyphs / "glyphs/train", "data.test": glyphs / "glyphs/test"}
    bars = {"trainer.enable_progress_bar": False, "trainer.enable_model_summary": False}

    record = train(compose_run({**settings, "data": "folder", **folders, **bars}))

    (folder,) = tmp_path.glob("*/*")
    assert (folder / "adapter.safetensors").read_bytes() == (fitted.folder / "adapter.safetensors").read_bytes()
    assert (folder.parent.name, folder.name) == (fitted.folder.parent.name, fitted.folder.name)
    assert record["metrics"] == fitted.metrics
    assert fitted.classes == ("A", "B", "C", "D")


def test_what_is_predicted_is_what_the_run_has_evaluated(fitted: FewShotModel, glyphs: Path) -> None:
    measured = fitted.evaluate(glyphs / "glyphs/test")
    files, labels = images_of(glyphs / "glyphs/test")
    probabilities = fitted.predict_proba(files)
    rows = (fitted.folder / "predictions.csv").read_text().splitlines()[1:]

    for name in ("accuracy", "macro_f1", "ece", "count"):
        assert measured[name] == pytest.approx(fitted.metrics[f"test/{name}"], abs=1e-6)
    assert measured["loss"] == pytest.approx(fitted.metrics["test/loss"], rel=1e-5)
    assert [fitted.classes.index(label) for label in fitted.predict(files)] == [int(row.split(",")[2]) for row in rows]
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert np.mean([a == b for a, b in zip(fitted.predict(files), labels, strict=True)]) == measured["accuracy"]
    embedded = fitted.embed(files)
    assert np.linalg.norm(embedded, axis=1) == pytest.approx(1)
    scores = fitted._run.classifier.logits(torch.from_numpy(embedded)).softmax(1).numpy()
    assert scores == pytest.approx(probabilities, abs=1e-6)


def test_a_data_set_is_trained_on_as_its_folder_is_and_nothing_is_said(
    fitted: FewShotModel, glyphs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files, tested = (images_of(glyphs / f"glyphs/{split}")[0] for split in ("train", "test"))
    expected = fitted.predict_proba(tested)
    capfd.readouterr()

    model = kravl.fit(Arrays(files), test=Arrays(tested), **CHOSEN)

    assert capfd.readouterr() == ("", "")
    assert model.classes == (0, 1, 2, 3)
    assert model._run.class_names == ("A", "B", "C", "D")  # in prompts
    assert model.predict_proba(tested) == pytest.approx(expected, abs=1e-6)
    assert model.metrics["test/accuracy"] == fitted.metrics["test/accuracy"]
    assert model.evaluate(Arrays(tested))["accuracy"] == fitted.metrics["test/accuracy"]
    place = model.folder
    del model
    assert not place.exists()  # a temporary folder lives as long as its model


def test_a_model_is_saved_loaded_and_pickled(fitted: FewShotModel, glyphs: Path, tmp_path: Path) -> None:
    files, _ = images_of(glyphs / "glyphs/test")
    target = fitted.save(tmp_path / "kept")

    loaded, pickled = FewShotModel.load(target), pickle.loads(pickle.dumps(fitted))

    for model in (loaded, pickled):
        assert np.array_equal(model.predict_proba(files), fitted.predict_proba(files))
        assert model.metrics == fitted.metrics
    with pytest.raises(InputError, match=r"kept is there already; force=True replaces it"):
        fitted.save(target)
    assert fitted.save(target, force=True) == target


def test_the_same_call_finds_its_run(fitted: FewShotModel, glyphs: Path) -> None:
    begun = (fitted.folder / "metrics.json").stat().st_mtime_ns
    runs = fitted.folder.parents[1]
    again = kravl.fit(glyphs / "glyphs/train", test=glyphs / "glyphs/test", out=runs, **CHOSEN)
    assert (again.folder, (again.folder / "metrics.json").stat().st_mtime_ns) == (fitted.folder, begun)


IMAGES: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda pixels: pixels,
    "grey": lambda pixels: pixels[:, :, :1],
    "tensor": lambda pixels: torch.from_numpy(pixels).movedim(-1, 0),
    "picture": lambda pixels: Image.fromarray(pixels),
}


@pytest.mark.parametrize("form", IMAGES.values(), ids=IMAGES)
def test_an_image_in_any_form_has_its_pixels(form: Callable[[np.ndarray], Any]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = np.asarray(as_image(form(pixels)))
    grey = getattr(form(pixels), "shape", ())[-1:] == (1,)
    assert np.array_equal(image, np.repeat(pixels[:, :, :1], 3, axis=2) if grey else pixels)
    assert len(listed(form(pixels))) == 1
    assert len(listed([form(pixels)] * 3)) == 3
    assert len(listed(np.zeros((6, 28, 28), np.uint8))) == 6  # grey images


def test_a_model_by_its_name_is_a_shipped_backbone_or_one_of_its_library() -> None:
    shipped = {
        "ViT-B-16": "clip_vitb16",
        "ViT-L-14": "clip_vitl14",
        "kravl-tiny": "kravl_tiny",
        "kravl_tiny": "kravl_tiny",
    }
    shipped["vit_base_patch16_224"] = "vit_b16"
    assert {name: backbone_settings(name, None)["backbone"] for name in shipped} == shipped
    assert backbone_settings("ViT-B-16", "dfn2b") == {"backbone": "dfn_b16"}
    of_random = backbone_settings("vit_tiny_patch16_224", None)
    assert of_random["backbone.build.pretrained"] is True  # not those of the backbone that ships without weights
    for name, pretrained, loaded in (
        ("ViT-B-16", "laion2b_s34b_b88k", "laion2b_s34b_b88k"),
        ("resnet50.a1_in1k", None, True),
    ):
        build = compose_run({**backbone_settings(name, pretrained), "data": "dtd"}).backbone.build
        assert (build["name"], build["pretrained"]) == (name, loaded)
    assert data_settings("dtd") == {"data": "dtd"}
    stages = [{"train": ["adapters"], "share": 0.6}, {"train": ["head"], "lr": 1e-2}]
    composed = compose_run({"data": "dtd", "linear_head": True, "optim.steps": 10, "stages": stages}).stages
    assert [{key: value for key, value in stage.items() if value is not None} for stage in composed] == stages


FILES = [Path("/nowhere/a.png"), Path("/nowhere/b.png")]
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no data": ({"data": "/nowhere/images"}, r"is no folder, no table and no data set: unknown data set"),
    "no such model": ({"data": "dtd", "model": "ViT-B-15"}, r"unknown model 'ViT-B-15': did you mean 'ViT-B-1\d"),
    "no weights": ({"data": "dtd", "model": "ViT-B-16-plus-240"}, r"name its weights as pretrained=, one of laion400m"),
    "no such setting": (
        {"data": "dtd", "settings": {"optim.lrr": 1}},
        r"unknown key 'optim.lrr': did you mean 'optim.lr'",
    ),
    "no value": ({"data": "dtd", "settings": {"optim.lr": object()}}, r"a setting is a text, .* not object"),
    "no labels": ({"data": FILES}, r"labels are missing: pass images and labels"),
    "labels as one text": (
        {"data": FILES, "labels": "dog"},
        r"labels='dog' is str; labels are a list with one for each",
    ),
    "labels as a number": ({"data": FILES, "labels": 3.5}, r"labels='3\.5' is float; labels are a list"),
    "a value in a section": (
        {"data": "dtd", "settings": {"optim": {"lr": "x"}}},
        r"optim={lr:x}: optim\.lr must be a number",
    ),
    "too few labels": ({"data": FILES, "labels": ["a"]}, r"2 images and 1 labels; each image has one"),
    "no images": ({"data": [], "labels": []}, r"no images are given"),
    "no such file": ({"data": FILES, "labels": ["a", "b"]}, r"cannot read /nowhere/a\.png: no such file"),
    "an odd label": ({"data": FILES, "labels": [1.5, 2]}, r"the label '1\.5' is float; labels are texts or whole"),
    "an odd image": (
        {"data": [3, 4], "labels": [0, 1]},
        r"an image is a path, a PIL image, an array or a tensor, not int",
    ),
    "floats": (
        {"data": np.zeros((2, 8, 8, 3)), "labels": [0, 1]},
        r"pixels of shape \(8, 8, 3\) and float64; they must be \(h, w\) or \(h, w, c\) and uint8",
    ),
    "labels of two types": (
        {"data": np.zeros((2, 8, 8, 3), np.uint8), "labels": [0, "1"]},
        r"labels are texts and numbers",
    ),
    "another class": (
        {"data": np.zeros((2, 8, 8, 3), np.uint8), "labels": [0, 1], "test": (np.zeros((1, 8, 8, 3), np.uint8), [2])},
        r"test: the label '2' is none of those that are trained on",
    ),
}


@pytest.mark.parametrize(("arguments", "reason"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        kravl.fit(**{**CHOSEN, **arguments})
    assert "\n" not in str(caught.value)


def test_a_fit_that_is_refused_leaves_nothing_in_its_folder(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    for mistake in ({"labels": [0, "1"]}, {"settings": {"optim.lrr": 1}}, {"test": (images, [2, 3])}):
        with pytest.raises(InputError):
            kravl.fit(**{**CHOSEN, "data": images, "labels": [0, 1], "out": tmp_path / "out", **mistake})
        assert not (tmp_path / "out").exists()

    state = tmp_path / "out/earlier/seed1/checkpoints/state"  # of another run
    state.mkdir(parents=True)
    with pytest.raises(InputError):
        kravl.fit(**{**CHOSEN, "data": images, "labels": [0, "1"], "out": tmp_path / "out"})
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["earlier"]


def test_a_folder_that_no_disk_takes_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has a name of 300 bytes; at most 255"):
        kravl.fit(**{**CHOSEN, "data": "dtd", "out": tmp_path / ("a" * 300)})


def test_an_unknown_class_of_an_evaluation_is_told(fitted: FewShotModel, glyphs: Path) -> None:
    files, _ = images_of(glyphs / "glyphs/test")
    with pytest.raises(InputError, match=r"unknown class of the model 'E': did you mean"):
        fitted.evaluate(files[:1], ["E"])


class ByIndex:
    """What a pandas Series does after a shuffle: by place when it is iterated over, by its index in brackets."""

    def __init__(self, values: list[Any], index: list[int]) -> None:
        self.values, self.index = values, index

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Any:
        return iter(self.values)

    def __getitem__(self, key: int) -> Any:
        return self.values[self.index.index(key)]


@pytest.mark.parametrize("index", [[3, 2, 1, 0], [10, 11, 12, 13]])
def test_images_and_labels_go_together_by_their_place(index: list[int]) -> None:
    files, labels = ["a", "b", "c", "d"], ["cat", "dog", "cat", "cow"]

    given = list(pairs(ByIndex(files, index), ByIndex(labels, index)))

    assert given == list(zip(files, labels, strict=True))


class Endless:
    """A sequence by its length and its brackets, which raise nothing behind its end."""

    def __init__(self, length: int, end: int | None = None) -> None:
        self.length, self.end = length, end

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, place: int) -> str:
        if place == self.end:
            raise IndexError
        return f"{place}.png"


def test_what_has_an_order_and_a_length_is_a_list_of_images_or_labels() -> None:
    named = {"0.png": "cat", "1.png": "dog"}

    assert list(pairs(named.keys(), named.values())) == list(named.items())
    assert list(pairs(named.values(), named.keys())) == [(label, image) for image, label in named.items()]
    assert list(pairs(Endless(2), ["cat", "dog"])) == list(named.items())
    assert list(each(Endless(2))) == list(named)
    with pytest.raises(InputError, match="the images end after 1; their length is 2"):
        list(pairs(Endless(2, end=1), ["cat", "dog"]))


@pytest.mark.parametrize(
    ("data", "labels", "reason"),
    [
        ({0: "a.png", 1: "b.png"}, ["x", "y"], "images are a dict; they must have an order"),
        ({"a.png", "b.png"}, ["x", "y"], "images are a set"),
        (["a.png", "b.png"], {0: "x", 1: "y"}, "labels are a dict"),
        (["a.png", "b.png"], frozenset("xy"), "labels are a frozenset"),
        (["a.png", "b.png"], np.eye(2), r"the label '\[1. 0.\]' is not one value"),
        (["a.png", "b.png"], torch.eye(2), "is not one value"),
        (["a.png"], ["\ud800"], "not UTF-8"),
    ],
)
def test_images_without_an_order_and_labels_that_are_none_are_refused(data: Any, labels: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        list(pairs(data, labels))


@pytest.mark.parametrize("item", [("a.png", 1, 2), "a.png", {"image": 1, "label": 2}, None])
def test_a_data_set_of_no_pairs_is_told(item: Any) -> None:
    class Given(Dataset):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Any:
            return item

    with pytest.raises(InputError, match=r"an item of the data set is a .*; it must be \(image, label\)"):
        list(pairs(Given(), None))


def test_a_stream_of_pairs_without_a_length_is_told() -> None:
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            return iter(())

    with pytest.raises(InputError, match="Stream has no length"):
        list(pairs(Stream(), None))


def test_names_that_a_spreadsheet_computes_are_written_as_they_are(tmp_path: Path) -> None:
    names = ["=cat", "@home", "-foo", "+1 dog", 'a "b", c']

    write_labels(tmp_path, names, str)

    assert list(read_class_list(str(tmp_path / "class_names.csv")).values()) == names


@pytest.mark.parametrize("ending", [".tmp", ".part", ".bak", ".old", ".jpg~", ".pdf", "", ".JPG"])
def test_a_file_that_is_given_is_read_whatever_it_is_called(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"photo{ending}"
    Image.new("RGB", (4, 5), "red").save(file, "PNG")

    write_folders(tmp_path / "home", "train", [(file, "a"), (file, "b")])

    found = [path for folder in (tmp_path / "home/train").iterdir() for path in find_images(folder).images]
    assert len(found) == 2


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((0, 5, 3), np.uint8), "5 x 0 pixels: it is empty"),
        (np.zeros((1, 20_000, 3), np.uint8), "one side is over 500 times the other"),
        (Image.new("F", (5, 5)), "floating-point pixels have no known range"),
        ("x" * 300 + ".png", "no such file"),
        ("photo.nef", "no such file"),
    ],
)
def test_an_image_that_cannot_be_used_is_one_line(image: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        write_folders(tmp_path, "train", [(image, "a")])
