"""A folder in PEFT's format from a stranger is read, or refused in one line; nothing in it runs or is looked up."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kravl.peft import KRAdapterConfig, load_from_peft
from kravl.runtime.errors import InputError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Edit = Callable[[Path], object]


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))


def setting(**values: object) -> Edit:
    def edit(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text()) | values
        (folder / CONFIG).write_text(json.dumps(config))

    return edit


def text(content: str) -> Edit:
    return lambda folder: (folder / CONFIG).write_text(content)


def tensors(change: Callable[[Tensor], Tensor]) -> Edit:
    def edit(folder: Path) -> None:
        changed = {name: change(tensor) for name, tensor in load_file(folder / WEIGHTS).items()}
        save_file(changed, folder / WEIGHTS)

    return edit


def pipe(name: str) -> Edit:
    def edit(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return edit


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({"a": Payload()}, folder / "adapter_model.bin")


EDITS: dict[str, tuple[Edit, str]] = {
    "a method of none": (setting(peft_type="EVIL"), "unknown peft_type in .* 'EVIL'"),
    "a method that is a number": (setting(peft_type=5), "unknown peft_type"),
    "an unknown task": (setting(task_type="EVIL"), "is no config of PEFT: Invalid task type"),
    "a scale as text": (setting(lora_alpha="2"), "lora_alpha must be a finite number, not '2'"),
    "a scale of no number": (setting(lora_alpha=float("nan")), "lora_alpha must be a finite number, not 'nan'"),
    "a list": (text("[1]"), "is not a JSON object"),
    "an empty file": (text(""), "is not JSON"),
    "depth": (text("[" * 100_000), "is not JSON"),
    "no config": (lambda folder: (folder / CONFIG).unlink(), "cannot read .*adapter_config.json: No such file"),
    "a pipe for a config": (pipe(CONFIG), "it is a pipe or a device"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "holds neither adapter_model.safetensors nor"),
    "a pipe for weights": (pipe(WEIGHTS), "it is a pipe or a device"),
    "damaged weights": (lambda folder: (folder / WEIGHTS).write_bytes(b"x" * 99), "is damaged, or holds more than"),
    "a pickle": (pickled, "adapter_model.bin is damaged, or holds more than tensors"),
    "whole numbers": (tensors(Tensor.int), "is torch.int32; the factors of an adapter are floating-point numbers"),
    "double precision": (tensors(Tensor.double), "is in double precision, and the model is torch.float32"),
    "no numbers": (tensors(lambda tensor: tensor * float("nan")), "has values that are infinite or no numbers"),
}


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    get_peft_model(plain(), LoraConfig(target_modules=["0"], r=2)).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("name", EDITS)
def test_what_is_wrong_is_one_line_and_the_model_is_left_alone(name: str, saved: Path) -> None:
    edit, reason = EDITS[name]
    edit(saved)
    model = plain()
    before = {key: value.clone() for key, value in model.state_dict().items()}

    with pytest.raises(InputError, match=reason) as error:
        load_from_peft(model, saved)

    assert "\n" not in str(error.value)
    assert not Path("ran").exists()
    assert [type(module) for module in model] == [nn.Linear, nn.Linear]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_name_of_no_folder_is_not_looked_up_on_the_hub(saved: Path) -> None:
    with pytest.raises(InputError, match=r"no folder .*save \(did you mean .*saved\?\)"):
        load_from_peft(plain(), saved.with_name("save"))


def test_half_precision_is_taken_without_a_loss(saved: Path) -> None:
    tensors(Tensor.half)(saved)

    adapters = load_from_peft(plain(), saved)

    assert sorted(adapters.adapters) == ["0"]


def test_the_card_says_what_loading_needs_whatever_the_adapter_is_called(tmp_path: Path) -> None:
    config = KRAdapterConfig(target_modules=["0"])
    get_peft_model(plain(), config, adapter_name="birds").save_pretrained(tmp_path / "mine")

    assert (tmp_path / "mine/birds" / CONFIG).is_file()
    assert "import kravl.peft" in (tmp_path / "mine/README.md").read_text()


def test_the_card_of_another_adapter_or_project_is_left_as_it_is(saved: Path) -> None:
    before = (saved / "README.md").read_bytes()
    KRAdapterConfig(target_modules=["0"]).save_pretrained(str(saved / "birds"))
    assert (saved / "README.md").read_bytes() == before

    (saved.parent / "README.md").write_bytes(b"caf\xe9")
    KRAdapterConfig(target_modules=["0"]).save_pretrained(str(saved.parent / "birds"))
    assert (saved.parent / "README.md").read_bytes() == b"caf\xe9"
