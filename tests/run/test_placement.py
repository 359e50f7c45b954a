"""Where adapters go is decided on the model without its weights, before anything is loaded, and recorded."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from tiny_run import WHOLE_VIT

from kravl.config.compose import as_written, typed
from kravl.run import build
from kravl.run.build import build_run
from kravl.run.placement import check_sites, place
from kravl.run.train import train
from kravl.runtime.errors import InputError
from kravl.tracking.former_presets import RANKS, former_presets
from kravl.tracking.settings import deciding_settings

NOWHERE = "backbone.build.pretrained=/nowhere"
RESNET = ("backbone.build.name=test_resnet", "backbone.build.image_size=null")


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        ("sites=bothh", r"unknown sites preset 'bothh': did you mean 'both'\? \(all, both, cliplora, text, vision\)"),
        ("sites=text", r"sites=text: the model has no text tower"),
        ("targets=[blocks.*.attn.qkw]", r"target 'blocks\.\*\.attn\.qkw' matches no weight matrix; the nearest names"),
        ("unfreeze=[blocks.99.*]", r"unfreeze pattern 'blocks\.99\.\*' matches no unadapted parameter"),
        (
            "unfreeze=[norm]",
            r"unknown preset of parameters 'norm': did you mean 'norms'\? \(biases, last_two_blocks, norms\)",
        ),
        ("++adapter.rnak=2", r"unknown setting of LoRA 'rnak': did you mean 'rank'"),
        ("adapter.rank=0", r"adapter.rank=0: it must be a whole number of at least 1"),
        ("adapter.rank=nan", r"adapter.rank=nan: it must be a whole number of at least 1"),
        ("adapter.dropout=1.5", r"adapter.dropout=1.5: it must be a number of at least 0 and below 1"),
        ("train_statistics=true", r"no norm of .* keeps running statistics"),
    ],
)
def test_a_mistake_in_what_adapts_is_told_before_weights_are_loaded(tiny_run: Any, mistake: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        build_run(typed(tiny_run("method=lora", NOWHERE, mistake)))


def test_more_parameters_than_the_matrices_have_are_told(tiny_run: Any, caplog: pytest.LogCaptureFixture) -> None:
    build_run(typed(tiny_run("method=lora", "adapter.rank=4000")))

    assert "an adapter has 1,024,000 trainable parameters for a matrix of 192 x 64, which has 12,288" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["method=linear_probe", "sites=vision"],
            "sites=vision: linear_probe adapts no matrix, and would train KRA",
        ),
        (["method=bitfit", "targets=[visual.*.mlp.*]"], "bitfit adapts no matrix, and would train KRAdapter"),
        (["method=kra", "adapter.scale=0"], "adapter.scale=0: the adapters would change nothing"),
        (["method=kra", "adapter.scale=0", "optim.epochs=0"], None),
        (["method=full", "sites=vision"], r"sites=vision restricts nothing: unfreeze=\['\*'\] trains all"),
        (["method=linear_probe", "sites=vision", "label=probe_and_kra"], None),
        (["method=full", "sites=vision", "unfreeze=[visual.*]"], None),
    ],
)
def test_sites_are_refused_where_a_method_has_no_use_for_them(
    tiny_run: Any, settings: list[str], message: str | None
) -> None:
    cfg = typed(tiny_run(*settings, backbone=["backbone=kravl_tiny"]))

    if message is None:
        check_sites(cfg)
    else:
        with pytest.raises(InputError, match=message):
            check_sites(cfg)


def test_a_tower_without_such_matrices_stops_the_run_before_weights_are_loaded(tiny_run: Any) -> None:
    with pytest.raises(
        InputError, match=r"^sites=cliplora: the image tower has no queries, keys and values; it is made"
    ):
        build_run(typed(tiny_run("method=cliplora", "split_protocol=official", NOWHERE, *RESNET)))


@pytest.mark.parametrize(
    ("method", "sites"),
    [("kra", {"image": {"conv": 12}}), ("full", {"image": {"conv": 12}}), ("layernorm", {}), ("last_blocks", {})],
)
def test_a_resnet_is_adapted_and_its_run_says_and_records_what_and_is_named_after_it(
    tiny_run: Any, method: str, sites: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config = tiny_run(f"method={method}", "optim.epochs=1", *RESNET, backbone=WHOLE_VIT)
    metrics = train(config)

    (path,) = Path(config.runs).glob(f"test_resnet_random_{method}_6shot_folder/*/metrics.json")
    assert json.loads(path.read_text()) == metrics
    assert (metrics["backbone"], metrics["sites"]) == ("test_resnet_random", sites)
    assert f"sites: {'image 12 (conv 12)' if sites else 'none'}\n" in caplog.text
    assert metrics["trainable_parameters"] > 0


def test_a_comparable_lora_has_the_rank_that_its_model_asks_for(tiny_run: Any) -> None:
    built = [
        build_run(typed(tiny_run("method=lora", *other, backbone=WHOLE_VIT)))
        for other in ((), ("adapter.rank=3",), RESNET)
    ]
    ranks = [run.adapters.description()["hyperparameters"] for run in built]

    assert [(each["rank"], each["alpha"]) for each in ranks[:2]] == [(15, 30), (3, 30)]
    assert ranks[2]["alpha"] == 2 * ranks[2]["rank"] > 0


def test_parameters_of_a_preset_train_beside_adapters(tiny_run: Any) -> None:
    run = build_run(
        typed(tiny_run("method=kra", "unfreeze=[last_two_blocks,norms]", "sites=vision", backbone=WHOLE_VIT))
    )
    names = run.adapters.unfrozen.keys()

    assert {"blocks.0.norm1.weight", "blocks.10.attn.proj.weight", "blocks.11.mlp.fc1.bias", "norm.bias"} <= names
    assert not {"blocks.9.attn.proj.weight", "blocks.10.attn.qkv.weight"} & names


def test_planning_leaves_the_random_numbers_of_a_run_alone(tiny_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = build_run(typed(tiny_run("method=kra")))
    monkeypatch.setattr(build.Classifier, "skeleton", classmethod(lambda *_: None))
    monkeypatch.setattr("kravl.backbones.vit.VitClassifier.skeleton", classmethod(lambda *_: None))
    unplanned = build_run(typed(tiny_run("method=kra")))

    for a, b in zip(planned.classifier.parameters(), unplanned.classifier.parameters(), strict=True):
        assert torch.equal(a, b)


def test_matrices_in_no_tower_are_told(tiny_run: Any, caplog: pytest.LogCaptureFixture) -> None:
    sizes = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2}
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
    with torch.device("meta"):
        coca = open_clip.CoCa(embed_dim=16, vision_cfg=vision, text_cfg=sizes, multimodal_cfg=sizes)

    placement = place(typed(tiny_run("targets=[*.mlp.c_fc]")), coca)

    assert placement.sites == {"image": {"mlp": 2}, "text": {"mlp": 2}}
    assert "4 of the adapted matrices are in no tower and will not be trained: text_decoder.resblocks.0" in caplog.text


METHODS = {"kra": None, "lora": None, "bitfit": "biases", "layernorm": "norms", "last_blocks": "last_two_blocks"}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_an_earlier_release_is_the_run_of_the_same_command(tiny_run: Any, method: str) -> None:
    for backbone in RANKS if method == "lora" else ("clip_vitl14", "vit_b16"):
        rank = RANKS[backbone]
        written = as_written(tiny_run(f"method={method}", backbone=[f"backbone={backbone}"]))
        former = {
            **written,
            "backbone": {**written["backbone"], **former_presets(backbone), "lora": {"rank": rank, "alpha": 2 * rank}},
        }
        if preset := METHODS[method]:
            former["unfreeze"] = f"${{backbone.parameters.{preset}}}"

        assert deciding_settings(former) == deciding_settings(written)
        own = {**former, "backbone": {**former["backbone"], "lora": {"rank": rank + 1, "alpha": 2 * rank}}}
        assert deciding_settings(own) != deciding_settings(written)
