"""``kravl data``: what each command prints, and one line for each mistake."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from file_server import CONTENT, SHA256, Shelf
from full_disk import full_disk
from hydra import compose, initialize_config_dir
from PIL import Image

from kravl.cli.data import main
from kravl.config.compose import typed
from kravl.config.schema import CONFIGS
from kravl.data import catalog
from kravl.run.build import build_run

Capture = pytest.CaptureFixture[str]
MakeTree = Callable[..., Path]


@pytest.fixture
def own(make_tree: MakeTree) -> list[str]:
    """The settings for an image folder of one's own."""
    root = make_tree("train", {"cat": 3, "hot_dog": 2})
    make_tree("test images", {"cat": 1, "hot_dog": 2})
    return ["folder", "--set", f"data.root={root}", "data.train=train", f"data.test='{root}/test images'"]


def test_help_lists_the_commands_with_an_example() -> None:
    # under its name of 0.1, which says the new one
    done = subprocess.run([sys.executable, "-m", "kravl.data", "--help"], capture_output=True, text=True, check=True)

    assert done.stderr == "python -m kravl.data is now `kravl data`\n"
    assert all(f"\n    {name} " in done.stdout for name in ("list", "download", "verify", "split", "show"))
    assert "kravl data split caltech101 --shots 16 --seed 1" in done.stdout


def test_list_has_a_line_for_every_card_and_says_what_is_on_disk(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "caltech-101/101_ObjectCategories").mkdir(parents=True)

    assert main(["list", "--data-root", str(tmp_path)]) == 0

    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert {path.parent.name for path in catalog.folder().glob("*/card.yaml")} <= set(lines)
    assert lines["caltech101"].rstrip().endswith("/caltech-101")
    assert "8,242" in lines["caltech101"]
    assert lines["oxford_pets"].rstrip().endswith(" no")


def test_verify_reports_on_a_folder_of_ones_own(own: list[str], capsys: Capture) -> None:
    assert main(["verify", *own]) == 0
    assert "train: 5 images of 2 classes, 2 to 3 a class" in capsys.readouterr().out

    root = Path(own[2].partition("=")[2])
    shutil.copy(root / "train/cat/0.png", root / "test images/cat/again.png")

    assert main(["verify", *own, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["leaked"][0]["names"] == ["train/cat/0.png", "test/cat/again.png"]


def test_verify_tells_of_kept_pixels_that_are_damaged(own: list[str], tmp_path: Path, capsys: Capture) -> None:
    cache = f"cache_root={tmp_path}/cache"
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = typed(compose("train", [*own[2:], "data=folder", "backbone=kravl_tiny", "shots=1", cache]))
    data = build_run(cfg).data
    data.check()
    assert main(["verify", *own, cache]) == 0
    (file,) = (tmp_path / "cache").glob("*.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[:-9] + bytes(9))

    assert main(["verify", *own, cache]) == 1
    assert f"{file} is damaged: 1 of 3 images are not what was written; remove it" in capsys.readouterr().out


@pytest.mark.assets
def test_verify_holds_published_sets_against_their_cards(assets: Path, capsys: Capture) -> None:
    assert main(["verify", "caltech101", "--data-root", str(assets)]) == 0
    text = capsys.readouterr().out

    assert f"caltech101: {assets}/caltech101\n  train: 4,128 images of 100 classes, 16 to 400 a class" in text
    assert text.endswith("all is well\n")


def test_split_prints_what_a_run_records(tiny_run: Callable[..., Any], glyphs: Path, capsys: Capture) -> None:
    run = build_run(typed(tiny_run("shots=3", "split_seed=5")))

    letters = ["--set", f"data.root={glyphs}/glyphs/train", "data.test=../test"]
    assert main(["split", "folder", "--shots", "3", "--seed", "5", "--protocol", "official", *letters]) == 0

    printed = json.loads(capsys.readouterr().out)
    assert printed["split_sha256"] == run.data.split_sha256
    assert [tuple(row[:2]) for row in printed["train"]] == list(
        zip(run.data.train_samples.names, run.data.train_samples.labels, strict=True)
    )
    lines = "".join(f"{path}\t{label}\n" for path, label, _ in printed["train"])
    assert hashlib.sha256(lines.encode()).hexdigest() == printed["split_sha256"]


@pytest.mark.assets
def test_split_needs_no_images_to_draw_coops_subset(assets: Path, capsys: Capture) -> None:
    file = assets / "coop/split_zhou_DescribableTextures.json"
    arguments = ["--split-file", str(file), "--shots", "16", "--seed", "2"]

    assert main(["split", "dtd", *arguments, "--data-root", "/nowhere"]) == 0

    printed = json.loads(capsys.readouterr().out)
    published = json.loads((assets / "coop/indices/dtd/shot_16-seed_2.json").read_text())
    listed = [row["impath"].partition("images/")[2] for row in published["train"]["data"]]
    assert [path for path, _, _ in printed["train"]] == listed


def test_show_writes_a_picture_of_the_set_or_of_a_corruption(own: list[str], tmp_path: Path, capsys: Capture) -> None:
    first, second = tmp_path / "new/first.png", tmp_path / "second.png"

    assert main(["show", *own, "--out", str(first), "--tile", "32", "--samples", "2"]) == 0
    assert main(["show", *own, "--out", str(second), "--tile", "32", "--corruption", "contrast"]) == 0

    assert capsys.readouterr().out == f"{first}\n{second}\n"
    with Image.open(first) as classes, Image.open(second) as severities:
        assert classes.width < severities.width


@pytest.fixture
def birds(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command that downloads a set of one file, `birds`, whose card is made here."""
    shelf.files["a.bin"] = CONTENT
    (tmp_path / "datasets/birds").mkdir(parents=True)
    (tmp_path / "datasets/birds/card.yaml").write_text(
        "homepage: https://example.org\nneeds: [a.bin]\n"
        f'files: [{{name: a.bin, urls: ["{shelf.url}/a.bin"], sha256: {SHA256}}}]\n'
    )
    monkeypatch.setattr("kravl.data.catalog.folder", lambda: tmp_path / "datasets")
    return ["download", "birds", "--data-root", str(tmp_path / "data")]


def test_download_brings_a_set_by_its_card(birds: list[str], tmp_path: Path, capsys: Capture) -> None:
    assert main(birds) == 0

    assert (tmp_path / "data/birds/a.bin").read_bytes() == CONTENT
    assert capsys.readouterr().out.endswith(f"birds is in {tmp_path}/data/birds\n")


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    birds: list[str], shelf: Shelf, tmp_path: Path, capsys: Capture
) -> None:
    with full_disk(room=100_000):
        assert main(birds) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "cannot be written" in line

    assert main(birds) == 0

    assert (tmp_path / "data/birds/a.bin").read_bytes() == CONTENT
    assert shelf.asked[1][1] == "bytes=100000-"


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(
    birds: list[str], shelf: Shelf, tmp_path: Path, capsys: Capture
) -> None:
    shelf.cuts["a.bin"] = [100_000]
    shelf.stalls.clear()
    part = tmp_path / "data/birds/a.bin.part"

    def press() -> None:
        while not (part.is_file() and part.stat().st_size == 100_000):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    threading.Thread(target=press, daemon=True).start()
    try:
        assert main(birds) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "interrupted; run the same command again to resume\n"
    shelf.stalls.set()

    assert main(birds) == 0

    assert (tmp_path / "data/birds/a.bin").read_bytes() == CONTENT
    assert shelf.asked[1][1] == "bytes=100000-"


OWN = ["folder", "--set", "data.root=${data_root}/glyphs/train", "data.test=../test"]
MISTAKES = {
    "a set": (["verify", "caltec101"], "unknown data set 'caltec101': did you mean 'caltech101'?"),
    "a set to download": (["download", "caltec101"], "did you mean 'caltech101'?"),
    "a setting": (["verify", *OWN, "--set", "data.rot=1"], "did you mean 'data.root'"),
    "a protocol": (
        ["split", *OWN, "--shots", "2", "--protocol", "cop"],
        "unknown split_protocol 'cop': did you mean 'coop'?",
    ),
    "shots": (["split", *OWN, "--shots", "many"], "shots=many"),
    "a split": (["show", *OWN, "--split", "tets"], "unknown split of folder 'tets': did you mean 'test'?"),
    "a corruption": (["show", *OWN, "--corruption", "fgo"], "did you mean 'fog'?"),
    "by hand": (["download", "imagenet"], "imagenet cannot be downloaded by a program"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(mistake: str, glyphs: Path, capsys: Capture) -> None:
    arguments, message = MISTAKES[mistake]

    assert main([*arguments, "--data-root", str(glyphs)]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_missing_set_names_where_it_was_looked_for(tmp_path: Path, capsys: Capture) -> None:
    assert main(["verify", "dtd", "--data-root", str(tmp_path)]) == 2

    line = capsys.readouterr().err
    assert str(tmp_path / "dtd") in line
    assert "https://" in line


def test_a_number_that_is_none_is_refused_by_the_parser(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["show", "folder", "--classes", "0"])

    assert exit_.value.code == 2
    assert "'0' is not a whole number from 1 up" in capsys.readouterr().err
