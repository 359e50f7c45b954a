"""Each method with a published setting composes it, and the table beside this file says where it does not."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from kravl.config.schema import CONFIGS
from kravl.data import catalog

TABLE = yaml.safe_load(Path(__file__).with_name("published_methods.yaml").read_text())
# the sections whose every setting decides what is trained; how fast, and on what, is told apart in tracking/settings.py
WHOLE = ("adapter", "optim", "sites", "targets", "unfreeze", "linear_head", "train_statistics", "split_protocol")
CONTEXT = ("context_tokens", "context_init", "context_per_class")  # of a method that learns one
SINGLE = ("short_classes", "data.templates", "trainer.gradient_clip_val", "trainer.precision", "loading.batch_size",
          "loading.min_batches", "loading.augmentation")  # fmt: skip
WITHOUT_SCRIPT = {
    *("dora", "krona", "sinlora", "kra_lora"),  # formulas; their runs are kravl's own
    *("shira", "hira", "loha", "abba", "c3a", "fourierft", "waveft", "pissa", "rslora", "lokr", "gralora", "delora"),
    *("miss", "bat", "oft", "hra", "road", "psoft"),
    # heads: what is theirs and what is ours stands in each file, as their settings are those of a class
    *("tip_adapter", "tip_adapter_f", "taskres", "clip_adapter", "zs_lp", "clap", "lp_plus_plus", "cross_modal", "rla"),
    *("ncm", "logistic_regression", "prolip"),
    *("bitfit", "layernorm", "last_blocks", "linear_probe", "zeroshot", "custom"),
}


def dotted(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def deciding(method: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", [f"method={method}", "backbone=clip_vitb16"])
    settings = OmegaConf.to_container(config, resolve=True)
    kept = {key: value for key, value in dotted(settings) if key.split(".")[0] in WHOLE or key in SINGLE}
    kept |= {key: settings[key] for key in CONTEXT if settings["context_tokens"]}
    if stages := settings["stages"]:
        kept["stages"] = [{key: value for key, value in stage.items() if value is not None} for stage in stages]
    return {key: value for key, value in kept.items() if key != "adapter._partial_"}


@pytest.mark.parametrize("method", TABLE)
def test_a_published_method_composes_what_its_table_says_and_nothing_besides(method: str) -> None:
    row = TABLE[method]
    composed = dict(row["theirs"]) | {key: value[0] for key, value in row["ours"].items() if value != "absent"}
    composed = {key: value for key, value in composed.items() if value != "absent"}

    assert deciding(method) == composed


def test_every_method_is_published_or_named_as_kravls_own() -> None:
    files = {path.stem for path in (CONFIGS / "method").glob("*.yaml")}
    assert files == set(TABLE) | WITHOUT_SCRIPT


def test_cliplora_has_one_prompt_for_every_set() -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", ["method=cliplora", "data=oxford_pets"])

    assert catalog.templates("oxford_pets", config.data.templates) == ("a photo of a {}.",)
