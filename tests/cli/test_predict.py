"""Images in, predictions out: those of the run's own evaluation, whole lines only, resumed where they stopped."""

import csv
import io
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image

from kravl.backbones import tiny
from kravl.cli.main import main
from kravl.config.schema import Backbone
from kravl.data.inspect import file_kinds
from kravl.data.loading.named_files import NamedFiles
from kravl.run.finished.restore import load_run
from kravl.run.finished.saved import saved_config
from kravl.run.prediction.other_classes import check_other_classes
from kravl.run.prediction.output import Prediction, PredictionFile, format_of
from kravl.run.prediction.scorer import Scorer
from kravl.run.prediction.stream import progress_line
from kravl.runtime.errors import InputError
from kravl.tracking.run_folder import find_run

NAMES = {"A", "B", "C", "D"}


@pytest.fixture
def images(glyphs: Path) -> Path:
    return glyphs / "glyphs/test"


def rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text(), newline="")))


def test_predictions_are_those_of_the_runs_own_evaluation(finished_run, images, tmp_path, capsys):
    out, sheet = tmp_path / "p.csv", tmp_path / "p.png"

    command = ["predict", str(finished_run), str(images), "--out", str(out), "--top", "4"]
    assert main([*command, "--sheet", str(sheet)]) == 0

    expected = {row["path"]: row for row in rows(finished_run / "predictions.csv")}
    said = {str(Path(row["path"]).relative_to(images)): row for row in rows(out)}
    assert said.keys() == expected.keys()
    for path, row in said.items():
        assert row["class_1"] == expected[path]["adapted_predicted_name"]
        assert float(row["probability_1"]) == pytest.approx(float(expected[path]["adapted_confidence"]), abs=1e-4)
        assert {row[f"class_{i}"] for i in range(1, 5)} == NAMES
        assert sum(float(row[f"probability_{i}"]) for i in range(1, 5)) == pytest.approx(1, abs=1e-5)
        assert row["error"] == ""
    assert not list(tmp_path.glob("*.unfinished.json"))
    with Image.open(sheet) as drawn:
        assert drawn.height > 4 * 96
    assert main(command) == 2
    assert "p.csv is there already; --force writes it anew" in capsys.readouterr().err


def test_energy_and_probabilities_are_those_of_open_clip_alone(glyphs, tmp_path, capsys):
    letters = [str(p) for p in sorted((glyphs / "glyphs/test/A").iterdir())[:3]]
    zero_shot = ["--model", "kravl-tiny", "--pretrained", "kravl", "--classes", "cat,dog,sun"]

    assert main(["predict", *zero_shot, *letters, "--format", "jsonl"]) == 0

    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    tiny.register()
    model, _, preprocess = open_clip.create_model_and_transforms("kravl-tiny", pretrained="kravl")
    tokens = open_clip.get_tokenizer("kravl-tiny")([f"a photo of a {name}." for name in ("cat", "dog", "sun")])
    with torch.no_grad():
        stacked = torch.stack([preprocess(Image.open(path).convert("RGB")) for path in letters])
        logits, _ = model.eval().get_logits(stacked, tokens)
    for row, expected, path in zip(said, logits, letters, strict=True):
        order = expected.argsort(descending=True).tolist()
        assert (row["path"], row["classes"]) == (path, [("cat", "dog", "sun")[i] for i in order])
        assert row["probabilities"] == pytest.approx(expected.softmax(0)[order].tolist(), abs=1e-5)
        assert row["energy"] == pytest.approx(-expected.exp().sum().log().item(), abs=1e-3)


def test_adapted_towers_score_class_names_that_they_were_not_trained_on(finished_run, glyphs, capsys):
    letters = [str(p) for p in sorted((glyphs / "glyphs/test/A").iterdir())[:3]]
    names, prompts = ("cat", "dog", "sun"), ["a drawing of a {}.", "{}"]
    given = [word for prompt in prompts for word in ("--prompt", prompt)]

    assert main(["predict", str(finished_run), *letters, "--classes", ",".join(names), *given, "--top", "3"]) == 0

    run = load_run(finished_run)
    run.adapters.merge_and_unload()
    model, tokenizer = run.classifier.encoder(), open_clip.get_tokenizer("kravl-tiny")
    _, _, preprocess = open_clip.create_model_and_transforms("kravl-tiny", pretrained="kravl")
    with torch.no_grad():
        of_prompts = [model.encode_text(tokenizer([p.format(n) for p in prompts]), normalize=True) for n in names]
        text = torch.nn.functional.normalize(torch.stack([each.mean(dim=0) for each in of_prompts]), dim=-1)
        stacked = torch.stack([preprocess(Image.open(path).convert("RGB")) for path in letters])
        expected = (model.logit_scale.exp() * model.encode_image(stacked, normalize=True) @ text.T).softmax(dim=1)
    for row, probabilities in zip(csv.DictReader(io.StringIO(capsys.readouterr().out)), expected, strict=True):
        found = {row[f"class_{i}"]: float(row[f"probability_{i}"]) for i in (1, 2, 3)}
        assert [found[name] for name in names] == pytest.approx(probabilities.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": Backbone("vit", {"_target_": "kravl.backbones.vit.VitClassifier"})}, "vit has no text tower"),
        ({"linear_head": True}, "linear_head=true trained a row of weights for each of its classes"),
        ({"context_tokens": 4, "context_per_class": True}, "learned a context for each of its classes"),
        ({"head": {"_target_": "kravl.backbones.heads.ncm.NearestClassMean"}}, "the head NearestClassMean is of its"),
        ({"head": {"_target_": "kravl.backbones.heads.rla.RLA"}}, None),
        ({"context_tokens": 4}, None),
        ({}, None),
    ],
)
def test_a_method_that_is_tied_to_its_classes_scores_no_others(finished_run, settings, message):
    cfg = replace(saved_config(find_run(str(finished_run)), {}), **settings)
    if message is None:
        check_other_classes(cfg)
    else:
        with pytest.raises(InputError, match=message):
            check_other_classes(cfg)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_stopped_command_resumes_to_the_same_file(finished_run, images, tmp_path, monkeypatch, kind):
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    odd = folder / 'A/new\nline, "quoted" \udce9.png'
    shutil.copy(next((images / "A").iterdir()), odd)
    (folder / "A/broken.png").write_bytes(b"not an image")
    command = ["predict", str(finished_run), str(folder), "--batch-size", "4", "--out"]
    whole, stopped = tmp_path / f"whole.{kind}", tmp_path / f"stopped.{kind}"
    assert main([*command, str(whole)]) == 1

    files, computed = Scorer.files, []

    def stopping(scorer, paths, batch_size, workers):
        for number, batch in enumerate(files(scorer, paths, batch_size, workers)):
            yield batch
            computed.append(len(batch))
            if number == 2:
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Scorer, "files", stopping)
    assert main([*command, str(stopped)]) == 75
    monkeypatch.setattr(Scorer, "files", files)
    lines = stopped.read_bytes()
    assert lines.endswith(b"\n")
    assert sum(computed) == 12
    stopped.write_bytes(lines[:-7])  # as a kill leaves it

    assert main([*command, str(stopped), "--alpha", "0.5"]) == 2  # those would be of another model
    assert main([*command, str(stopped), "--device", "cpu"]) == 1

    assert whole.read_bytes() == stopped.read_bytes()
    assert not list(tmp_path.glob("*.unfinished.json"))


def test_a_file_of_other_settings_or_images_is_not_resumed(finished_run, images, tmp_path, capsys):
    out = tmp_path / "p.csv"
    out.write_text("path\n")
    out.with_name("p.csv.unfinished.json").write_text('{"model": "x"}')
    assert main(["predict", str(finished_run), str(images / "A"), "--out", str(out)]) == 2
    assert "was begun with model x ->" in capsys.readouterr().err

    lines = format_of("csv", 4)
    with PredictionFile(out, lines, {}, force=True) as begun:
        begun.write([Prediction("elsewhere.png", error="gone")])
        with pytest.raises(InputError, match=r"has 'elsewhere.png' where 'a.png' is now"):
            list(begun.written(iter(["a.png"])))
        with pytest.raises(InputError, match="is written by another process"):
            PredictionFile(out, lines, {}, force=True)
    with PredictionFile(out, format_of("csv", 2), {}, force=False) as other, pytest.raises(InputError, match="begins"):
        list(other.written(iter(["elsewhere.png"])))


def test_files_that_cannot_be_read_are_listed_and_the_rest_predicted(
    finished_run, glyphs, tmp_path, monkeypatch, capsys
):
    good = sorted((glyphs / "glyphs/test/A").iterdir())[0]
    broken, pipe, grey = tmp_path / "broken.jpg", tmp_path / "pipe.png", tmp_path / "grey.png"
    broken.write_bytes(good.read_bytes()[:60])
    os.mkfifo(pipe)
    Image.new("I;16", (9, 500), 40000).save(grey)
    names = "\n".join(map(str, (good, broken, pipe, grey, tmp_path / "listed.png", "x" * 5000, "a" * 256 + "/b.png")))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(names.encode())))

    assert main(["predict", str(finished_run), "-", "--workers", "2", "--batch-size", "2"]) == 1

    out, err = capsys.readouterr()
    assert [bool(row["error"]) for row in csv.DictReader(io.StringIO(out))] == [False, True, True, False] + 3 * [True]
    assert "5 files could not be read:" in err and err.count("file name too long") == 2
    for reason in ("broken.jpg: ", "pipe.png: not a file", "listed.png: no such file"):
        assert f"cannot read {tmp_path}/{reason}" in err


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights may be loaded."""
    monkeypatch.setattr("kravl.backbones.clip.load_clip", lambda _: pytest.fail("weights were loaded"))


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN"], "no images are named"),
        (["RUN", "EMPTY"], "no images in"),
        (["RUN", "nothing.png"], "no file or folder 'nothing.png'"),
        (["RUN", ""], "the name of an image is empty"),
        (["", "EMPTY"], "the name of a run is empty"),
        (["RUN", "nothing*.png"], "no image matches 'nothing*.png'"),
        (["RUN", "-", "-"], "- is given twice"),
        (["nowhere/seed1", "EMPTY"], "no run 'nowhere/seed1'"),
        (["RUN", "IMAGES", "--top", "5"], "--top 5: the model has 4 classes"),
        (["RUN", "IMAGES", "--alpha", "2"], "alpha=2.0: from 0"),
        (["IMAGES", "--model", "kravl-tiny", "--pretrained", "kravl"], "--model needs --classes"),
        (["RUN", "IMAGES", "--pretrained", "kravl"], "--pretrained is of --model"),
        (["RUN", "IMAGES", "--prompt", "a {}"], "--prompt words the classes of --classes"),
        (["RUN", "IMAGES", "--classes", "a,b", "--prompt", "a"], "has no {}"),
        (["RUN", "IMAGES", "--classes", "a,a"], "'a'"),
        (["IMAGES", "--model", "kravl-tiny", "--pretrained", "kravl", "--classes", "a"], "1 class; every image"),
        (["IMAGES", "--model", "kravl-tini", "--pretrained", "kravl", "--classes", "a,b"], "did you mean 'kravl-tiny'"),
        (["IMAGES", "--model", "kravl-tini", "--classes", "a,b"], "did you mean 'kravl-tiny'"),
        (["IMAGES", "--model", "ViT-B-32", "--classes", "a,b"], "name its weights, --pretrained openai | "),
        (["RUN", "IMAGES", "--classes", "cat,,dog,"], "--classes 'cat,,dog,': name 2 and 4 of 4 is empty"),
        (["RUN", "IMAGES", "--classes", "nosuch.txt"], "--classes: no file 'nosuch.txt'"),
        (["RUN", "IMAGES", "--out", "x.txt"], "unknown ending of --out '.txt'"),
        (["RUN", "IMAGES", "--out", "no/such/x.csv"], "no folder 'no/such'"),
        (["RUN", "IMAGES", "--out", "/proc/x.csv"], "/proc/x.csv cannot be written: "),
        (["RUN", "IMAGES", "--sheet", "/proc/x.png"], "/proc/x.png cannot be written: "),
        (["RUN", "IMAGES", "--out", "THERE"], "there.csv is there already; --force writes it anew"),
        (["RUN", "IMAGES", "--out", "BEGUN"], "begun.csv was begun with "),
        (["IMAGES", "--model", "kravl-tiny", "--classes", "a,b", "--top", "3"], "--top 3: the model has 2 classes"),
        (["IMAGES", "--model", "kravl-tiny", "--classes", "a,b", "--prompt", "a"], "has no {}"),
        (["RUN", "IMAGES", "--device", "cuda:99"], "--device cuda:99"),
        (["RUN", "IMAGES", "--device", "meta:0"], "--device meta:0: a tensor has no values there; cpu is always"),
        (["RUN", "IMAGES", "--device", "hpu"], "--device hpu: No module named 'torch.hpu'; cpu is always there"),
        (["RUN", "IMAGES", "--device", "mtia"], "--device mtia: Torch not compiled with MTIA enabled; cpu is"),
        (["RUN", "IMAGES", "--device", "npu"], "others need their package (npu: torch_npu)"),
        (["RUN", "IMAGES", "--device", "cuda:x"], "unknown --device 'cuda:x': did you mean 'cuda'?"),
        (["RUN", "IMAGES", "--device", "cud"], "did you mean 'cuda'?"),
        (["RUN", "x" * 300 + ".png"], "no file or folder 'xxx"),
        (["RUN", "IMAGES", "--top", "99", "--classes", ",".join(f"name {i}" for i in range(60))], "has 60 classes"),
    ],
)
def test_mistakes_are_one_line_before_weights_are_loaded(finished_run, images, tmp_path, capsys, arguments, message):
    (tmp_path / "there.csv").write_text("path\n")
    (tmp_path / "begun.csv").write_text("path\n")
    (tmp_path / "begun.csv.unfinished.json").write_text(json.dumps({"alpha": 0.5}))
    (tmp_path / "empty").mkdir()
    places = {"RUN": str(finished_run), "EMPTY": str(tmp_path / "empty"), "IMAGES": str(images)}
    places |= {"THERE": str(tmp_path / "there.csv"), "BEGUN": str(tmp_path / "begun.csv")}

    assert main(["predict", *(places.get(argument, argument) for argument in arguments)]) == 2

    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_batch_that_memory_does_not_hold_is_halved_to_the_same_logits(finished_run, monkeypatch):
    scorer = Scorer.of_run(load_run(finished_run))
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected, features = scorer(images), scorer.classifier.image_features

    def small(batch):
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return features(batch)

    monkeypatch.setattr(scorer.classifier, "image_features", small)
    assert torch.allclose(scorer(images), expected, atol=1e-5)


def test_a_model_with_one_set_of_weights_needs_no_name_of_them(images, capsys):
    """Random weights would score by chance, without a word."""
    scored = []
    for named in ([], ["--pretrained", "kravl"]):
        assert main(["predict", "--model", "kravl-tiny", *named, "--classes", "circle,square", str(images)]) == 0
        scored.append(capsys.readouterr().out)

    assert scored[0] == scored[1]


def test_patterns_and_order(tmp_path):
    for name in ("b/2.png", "b/1.png", "a/x.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    files = NamedFiles([f"{tmp_path}/**/*", "-", f"{tmp_path}/b/2.png"], io.BytesIO(b"one.png\r\n\ntwo\xe9.png"))

    assert files.total is None
    found = [str(tmp_path / name) for name in ("a/x.png", "b/1.png", "b/2.png")]
    assert list(files) == [*found, "one.png", "two\udce9.png", str(tmp_path / "b/2.png")]
    assert NamedFiles([str(tmp_path)]).total == 3


def test_a_pattern_goes_round_no_links_and_into_a_linked_folder_once(tmp_path):
    for name in ("set/a/1.png", "set/a/b/2.png", "set/a/b/2.jpg", "set/.hidden/3.png", "other/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for link, target in (("a/here", "."), ("a/again", "."), ("a/up", ".."), ("linked", "../other")):
        (tmp_path / "set" / link).symlink_to(target)  # with glob, 2^40 paths

    def found(pattern):
        return [str(Path(name).relative_to(tmp_path)) for name in NamedFiles([f"{tmp_path}/{pattern}"])]

    assert found("set/**/*.png") == ["set/a/1.png", "set/a/b/2.png", "set/linked/4.png"]
    assert found("set/**/b/*") == ["set/a/b/2.jpg", "set/a/b/2.png"]
    assert found("*/**/?.png") == ["other/4.png", "set/a/1.png", "set/a/b/2.png", "set/linked/4.png"]
    assert found("set/**/*/*/*.png") == ["set/a/b/2.png"]
    assert found("set/**") == found("set/**/*") == ["set/a/1.png", "set/a/b/2.jpg", "set/a/b/2.png", "set/linked/4.png"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Makes empty files below the working folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(b"")

    return make


def test_a_pattern_finds_what_it_names_by_a_link_or_hidden(files):
    files("set/all/1.png", "set/all/.thumbs/2.png", "set/@eaDir/3.png", "set/all/.4.png", "set/a.png/5.png")
    Path("set/val").symlink_to("all")
    Path("set/all/back").symlink_to("..")

    def found(pattern):
        return list(NamedFiles([pattern]))

    assert found("set/**/val/*.png") == ["set/val/1.png"]
    assert found("set/**/[av]*/?.png") == ["set/a.png/5.png", "set/all/1.png", "set/val/1.png"]
    assert found("set/**/.thumbs/*.png") == ["set/all/.thumbs/2.png", "set/val/.thumbs/2.png"]
    assert found("**/@eaDir/**/*.png") == ["set/@eaDir/3.png"]
    assert found("./set/**/.*.png") == ["./set/all/.4.png", "./set/val/.4.png"]
    assert found("set/**/back/**/5.png") == ["set/all/back/a.png/5.png", "set/val/back/a.png/5.png"]
    assert found("set/**/**/./1.png") == ["set/all/1.png", "set/val/1.png"]
    assert "set/**/*.png" not in found("set/**/*.png") and len(found("set/**/*.png")) == 3


def test_folders_that_all_link_to_each_other_end_in_a_line(files):
    names = [f"set/{i}" for i in range(9)]
    files(*(f"{name}/1.png" for name in names))
    for name in names:
        for other in range(9):
            (Path(name) / f"to{other}").symlink_to(f"../{other}")

    with pytest.raises(InputError, match=r"links below 'set' lead to '.*/set/\d' in over 1,000 ways"):
        NamedFiles(["set/**/1.png"])


def test_a_folder_that_cannot_be_listed_is_passed_over_with_a_warning(files, tmp_path, monkeypatch, caplog):
    files("set/a/1.png")
    monkeypatch.chdir("set")
    for _ in range(20):  # beyond the longest path that the system opens
        Path("x" * 250).mkdir()
        monkeypatch.chdir("x" * 250)
    monkeypatch.chdir(tmp_path)

    assert list(NamedFiles(["set/**/*.png"])) == ["set/a/1.png"]
    assert caplog.text.count("cannot list set/xxx") == 1 and "File name too long; it is passed over" in caplog.text


def test_only_files_that_match_are_opened_to_see_whether_they_are_images(files, monkeypatch):
    files("set/a/1.png", "set/a/notes", "set/b/scan", "set/b/other")
    Path("set/b/scan").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    opened = []
    monkeypatch.setattr(file_kinds, "refuse_endless", lambda path: opened.append(str(path)))

    assert list(NamedFiles(["set/**/b/s*", "set/**/1.png"])) == ["set/b/scan", "set/a/1.png"]
    assert opened == ["set/b/scan"]


EDITS = {  # of the row of a prediction, in JSON
    "text for numbers": {"probabilities": ["x", "y"]},
    "no numbers": {"probabilities": [None, None]},
    "fewer numbers": {"probabilities": []},
    "not a number": {"probabilities": [float("nan"), 0.1]},
    "above one": {"probabilities": [2, 0.1]},
    "infinite": {"energy": float("inf")},
    "objects": {"classes": [{}, {}]},
    "numbers for names": {"classes": [1, 2]},
    "a class of no model": {"classes": ["hotdog", "cat"]},
    "a reason that is a number": {"error": 5},
    "a reason beside classes": {"error": "x"},
}


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_row_that_was_edited_is_no_prediction_to_go_on_from(edit, ending, tmp_path):
    row, lines, out = Prediction("a.png", ("cat", "=dog"), (0.75, 0.25), -1.5), format_of(ending[1:], 2), tmp_path / "p"
    edited = {**row._asdict(), **edit}
    with PredictionFile(out, lines, {}, force=True, class_names=("cat", "=dog")) as begun:
        begun.write([row])
        assert list(begun.written(iter(["a.png"]))) == [row]
        if ending == ".jsonl":
            out.write_text(json.dumps(edited) + "\n")
        elif "error" in edit or not edited["probabilities"]:
            pytest.skip("a row of CSV has a field for each, and a reason or classes")
        else:
            pairs = [
                str(cell) for pair in zip(edited["classes"], edited["probabilities"], strict=True) for cell in pair
            ]
            out.write_text(lines.header + ",".join(["a.png", *pairs, str(edited["energy"]), ""]) + "\n")

        with pytest.raises(InputError, match=r"holds .*--force writes it anew"):
            list(begun.written(iter(["a.png"])))


def test_a_field_longer_than_a_csv_reader_takes_is_no_prediction(tmp_path):
    lines = format_of("csv", 1)
    with PredictionFile(tmp_path / "p.csv", lines, {}, force=True) as begun:
        (tmp_path / "p.csv").write_text(lines.header + '"' + "a" * 200_000 + '",cat,1,1,\n')
        with pytest.raises(InputError, match="--force writes it anew"):
            list(begun.written(iter(["a.png"])))


def test_progress_says_rate_and_time_left():
    assert progress_line(1200, 5200, 10.0) == "1,200 of 5,200 images, 120 images/s, 33 s left"
    assert progress_line(1200, None, 10.0) == "1,200 images, 120 images/s"
