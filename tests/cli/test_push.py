"""What is sent to the Hub, by its real client to a local stand-in: files of kravl's alone, private by default."""

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import hub
import pytest
from huggingface_hub import HfApi, ModelCard, constants

from kravl.cli.main import main
from kravl.export.write import export_run
from kravl.run.finished.restore import load_run

OF_EXPORT = {"README.md", "config.json", "export.json", "load.py", "model.safetensors"}


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[hub.Hub]:
    """A Hub on this machine, somebody logged in."""
    with hub.serve() as it:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("kravl.export.push.HfApi", partial(HfApi, endpoint=it.url))
        monkeypatch.setattr("huggingface_hub.hf_api.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield it


@pytest.fixture(scope="module")
def written(finished_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export to timm."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kravl.export.write.difference", lambda *_: 0.0)  # of the tests of exports
        return export_run(load_run(finished_vit), "timm", tmp_path_factory.mktemp("exports") / "timm").folder


@pytest.fixture
def export(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "export")


def test_an_export_goes_to_a_private_repository_with_its_card_and_nothing_else(there, export, capsys):
    (export / ".env").write_text("KEY=secret")
    (export / "notes.txt").write_text("of mine")
    for number in range(60):
        (export / "wandb/offline").mkdir(parents=True, exist_ok=True)
        (export / f"wandb/offline/{number}.log").touch()

    assert main(["push", str(export), "me/model", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "left out: .env, notes.txt, wandb/ (60 files)\n" in said
    assert "nothing was sent to me/model: --dry-run; a new repository would be private (--public" in said
    assert main(["push", str(export), "me/model", "--dry-run", "--public"]) == 0
    assert "a new repository would be public (--public)\n" in capsys.readouterr().out
    assert not there.tokens
    assert main(["push", str(export), "me/model"]) == 0

    sent = there.repositories["me/model"]
    assert sent.keys() == OF_EXPORT and there.visibility == {"me/model": "private"}
    assert all(content == (export / name).read_bytes() for name, content in sent.items())
    assert ModelCard(sent["README.md"].decode()).data.library_name == "timm"
    assert capsys.readouterr().out.endswith(f"{there.url}/me/model/commit/1\n")

    assert main(["push", str(export), "me/model"]) == 2
    assert "me/model is on the Hub with 5 files; --force commits on top of them" in capsys.readouterr().err
    assert main(["push", str(export), "me/model", "--force"]) == 0
    assert main(["push", str(export), "me/seen", "--public"]) == 0
    assert there.visibility["me/seen"] == "public"


def test_a_run_is_loaded_from_what_was_sent(there, finished_run, glyphs, tmp_path, capsys):
    assert main(["push", str(finished_run), "me/run"]) == 0

    folder = tmp_path / "downloaded"
    folder.mkdir()
    for name, content in there.repositories["me/run"].items():
        (folder / name).write_bytes(content)
    assert {"predictions.csv", "inputs.json"}.isdisjoint(there.repositories["me/run"])  # names of images and places
    assert str(tmp_path) not in (folder / "config.yaml").read_text()
    image = str(next((glyphs / "glyphs/test/A").iterdir()))
    capsys.readouterr()
    said = [main(["predict", str(run), image]) or capsys.readouterr().out for run in (folder, finished_run)]
    assert said[0] == said[1]


def test_a_hub_that_refuses_or_is_silent_is_one_line_and_the_same_command_goes_on(there, export, monkeypatch, capsys):
    there.refuses = 403
    assert main(["push", str(export), "me/model"]) == 1
    error = capsys.readouterr().err
    assert "403 Forbidden" in error and "the same command fills it" in error and error.count("\n") == 1
    there.refuses = None
    assert main(["push", str(export), "me/model"]) == 0

    monkeypatch.setattr("kravl.export.push.SECONDS", 0.2)
    there.silent.clear()
    assert main(["push", str(export), "me/other"]) == 1
    there.silent.set()
    error = capsys.readouterr().err
    assert "timed out; nothing was sent, and nothing here has changed" in error and error.count("\n") == 1
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["push", str(export), "me/other"]) == 1
    assert "HF_HUB_OFFLINE" in capsys.readouterr().err
    assert {path.name for path in export.iterdir()} == OF_EXPORT


def test_what_is_not_whole_or_holds_a_secret_is_not_sent(there, export, finished_run, tmp_path, monkeypatch, capsys):
    def refused(what: Path | str, message: str, repository: str = "me/model") -> None:
        assert main(["push", str(what), repository]) == 2
        out, error = capsys.readouterr()
        assert message in error and error.count("\n") == 1 and not out
        assert not there.repositories

    (tmp_path / "empty").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half/config.yaml").touch()
    refused("nowhere", "no run 'nowhere'")
    refused(tmp_path / "empty", "no run")
    refused(tmp_path / "half", "is not finished")
    for name in ("model", "me/", "me/a b", "me/a/b", "me/..", "me/a--b"):
        refused(export, "is no repository of the Hub", name)
    card = (export / "README.md").read_text()
    (export / "README.md").write_text(f"{card}\nhf_{'a' * 34}\n")
    refused(export, "holds what looks like a token of the Hub")
    (export / "README.md").unlink()
    refused(export, "its card, README.md, is written last and is missing")
    (export / "README.md").symlink_to(tmp_path / "half/config.yaml")
    refused(export, "README.md is a link")
    weights = (export / "model.safetensors").read_bytes()
    (export / "model.safetensors").write_bytes(weights[:-1])
    refused(export, "is not whole: model.safetensors is missing, or of another size")
    (export / ".env").write_text("KEY")
    (export / "export.json").write_text('{"files": {".env": 3}}')
    refused(export, "lists '.env', a hidden file")
    (export / "export.json").write_text('{"files": {"../half/config.yaml": 0}}')
    refused(export, "'../half/config.yaml'")
    (export / "export.json").write_text("{}")
    refused(export, "does not say which files it has")
    monkeypatch.setattr("kravl.export.push.get_token", lambda: None)
    refused(finished_run, "nobody is logged in to the Hub here")


def test_labels_are_sent_and_nothing_else_that_their_file_holds(there, finished_run, tmp_path, capsys):
    folder = shutil.copytree(finished_run, tmp_path / "theirs")
    names = json.loads((folder / "model.json").read_text())["class_names"]
    for wrong in ("password", "[]", json.dumps({"labels": names[1:]}), json.dumps({"labels": [[], *names[1:]]})):
        (folder / "labels.json").write_text(wrong)
        assert main(["push", str(folder), "me/model", "--dry-run"]) == 2
        assert "labels.json" in capsys.readouterr().err
    (folder / "labels.json").write_text(json.dumps({"labels": names, "password": "x"}))
    (folder / "a\nb").touch()

    assert main(["push", str(folder), "me/model"]) == 0

    assert json.loads(there.repositories["me/model"]["labels.json"]) == {"labels": names}
    assert "a\\nb" in capsys.readouterr().out


def test_a_record_that_kravl_did_not_write_is_one_line_and_no_card(finished_run, tmp_path, capsys):
    folder = shutil.copytree(finished_run, tmp_path / "theirs")
    record = json.loads((folder / "metrics.json").read_text())
    edits = {"config": [1], "versions": [], "metrics": 5, "method": 5, "seed": "5", "shots": [1]}
    edits |= {"name": "x\n---\n# theirs", "zero_shot": {"test/accuracy": "x"}}
    for key, value in edits.items():
        (folder / "metrics.json").write_text(json.dumps({**record, key: value}))
        assert main(["push", str(folder), "me/model", "--dry-run"]) == 2, (key, value)
        error = capsys.readouterr().err
        assert f"is not what kravl writes: missing or invalid: {key}" in error and error.count("\n") == 1
