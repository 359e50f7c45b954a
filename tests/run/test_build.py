"""The parts of a run as its config describes them."""

import json

import pytest
import torch
from PIL import Image

from kravl.config.compose import typed
from kravl.config.quoting import as_overrides
from kravl.config.schema import Evaluation
from kravl.run.build import build_run
from kravl.run.sources import evaluation_sources, training_source
from kravl.runtime.errors import InputError

FOLDER = "_target_: kravl.data.sources.folder.ImageFolder"
TRAINING = f"{{{FOLDER}, name: glyphs, root: '${{data_root}}/glyphs/train', test: ../test}}"


def test_an_evaluation_set_that_is_the_training_set_is_left_out_with_a_line(tiny_run, caplog):
    caplog.set_level("INFO")
    parts = build_run(typed(tiny_run(f"++evaluation.sets.same={TRAINING}")))

    assert list(parts.data.evaluation_loaders()) == ["test"]
    assert "evaluation set same is what is trained on; left out" in caplog.text


@pytest.mark.parametrize(
    ("of_training", "of_set", "prompt"),
    [
        ("single", "single", "a photo of the number {}."),
        ("plain", "single", "a photo of a {}."),  # one prompt for every set, as CLIP-LoRA
        ("a photo of a {}, a type of pet.", "single", "a photo of the number {}."),
        ("plain", "the digit {}", "the digit {}"),
        (["a {}."], ["the digit {}"], "the digit {}"),
    ],
)
def test_own_classes_take_the_prompt_of_the_run_where_it_fits_any_set(tiny_run, of_training, of_set, prompt):
    training = training_source(typed(tiny_run()))
    sets = {"digits": {"templates": of_set, "source": {"_target_": "kravl.data.sources.digits.Digits"}}}

    built = evaluation_sources(Evaluation(name="other", sets=sets), training, [], of_training)

    assert built["digits"].templates == (prompt,)


def test_templates_are_checked_before_weights_are_loaded(tiny_run):
    nothing = "backbone.build.name=nothing"
    for templates in ("data.templates=[a {}.,a {c}.]", "+evaluation.sets.o.templates=a {c}."):
        digits = "+evaluation.sets.o.source={_target_: kravl.data.sources.digits.Digits}"
        with pytest.raises(InputError, match=r"'a \{c\}\.' has \{c\} at character 3"):
            build_run(typed(tiny_run(nothing, digits, *as_overrides([templates], "train"))))


def test_descriptions_reach_the_text_tower_and_too_long_ones_are_refused_before_weights(tiny_run, tmp_path):
    sentences = {letter: [f"{letter} stands."] * (i + 1) for i, letter in enumerate("ABCD")}
    (tmp_path / "own.json").write_text(json.dumps(sentences | {"D": ["very " * 99]}))
    tiny, descriptions = ["backbone=kravl_tiny"], f"data.descriptions={tmp_path}/own.json"

    run = build_run(typed(tiny_run("method=zeroshot", descriptions, backbone=tiny)))

    assert run.source.prompts[1] == ("B stands.",) * 2
    assert len(run.classifier._prompts.tokens) == 7
    with pytest.raises(InputError, match=r"1 of 7 prompts are longer .*; the first is 'very"):
        build_run(typed(tiny_run("method=zeroshot", descriptions, "data.long_prompts=error", backbone=tiny)))


def test_too_long_prompts_of_an_evaluations_own_classes_are_refused_before_weights(tiny_run, monkeypatch):
    monkeypatch.setattr("kravl.backbones.clip.load_clip", lambda chosen: pytest.fail("weights were loaded"))
    cfg = typed(tiny_run("evaluation.classes=own", "data.long_prompts=error", backbone=["backbone=kravl_tiny"]))
    serif = {"_target_": FOLDER.split()[1], "root": f"{cfg.data_root}/glyphs/serif", "test": "."}
    cfg.evaluation.sets = {"serif": {"source": serif, "templates": f"a {'very ' * 99}{{}}."}}

    with pytest.raises(InputError, match=r"4 of 4 prompts are longer"):
        build_run(cfg)


def test_an_evaluation_set_may_not_take_the_name_of_the_test_split(tiny_run):
    other = TRAINING.replace("glyphs/train", "glyphs/serif").replace("../test", ".")
    with pytest.raises(InputError, match="cannot be named 'test'"):
        build_run(typed(tiny_run(f"++evaluation.sets.test={other}")))


def test_class_weights_are_held_against_the_classes_before_any_weight_is_loaded(tiny_run):
    assert build_run(typed(tiny_run("optim.class_weights=balanced"))).class_weights == [1.0, 1.0, 1.0, 1.0]
    with pytest.raises(InputError, match=r"class_weights has 2 weights; there are 4 classes"):
        build_run(typed(tiny_run("optim.class_weights=[1,2]", "backbone.build.name=nothing")))


@pytest.mark.parametrize("mistake", ["sites=bothh", "adapter.rnak=2", "adapter.rank=two"])
def test_what_adapts_is_checked_before_weights_are_loaded(tiny_run, mistake):
    with pytest.raises(InputError, match=r"bothh|rnak|two"):
        build_run(typed(tiny_run("method=lora", f"++{mistake}", "++backbone.build.pretrained=/nowhere")))


def test_what_trains_starts_from_the_weights_as_they_are_however_frozen_ones_are_stored(tiny_run):
    settings = ("method=bitfit", "++unfreeze=[blocks.0.mlp.*]")
    exact, stored = (build_run(typed(tiny_run(*settings, f"+backbone.build.dtype={d}"))) for d in ("null", "bf16"))

    expected, actual = (dict(run.classifier.encoder().named_parameters()) for run in (exact, stored))
    assert all(torch.equal(expected[name], p) for name, p in actual.items() if p.requires_grad)
    for name in ("blocks.0.mlp.fc1.weight", "head.weight"):
        assert actual[name].requires_grad and actual[name].dtype == torch.float32
    assert actual["blocks.1.mlp.fc1.weight"].dtype == torch.bfloat16


def test_frozen_weights_of_which_none_can_be_stored_are_refused(tiny_run, caplog):
    caplog.set_level("INFO")
    build_run(typed(tiny_run("method=lora", "+backbone.build.dtype=bf16")))
    assert "parameters are stored in bf16" in caplog.text

    convolutions = ("backbone.build.name=resnet18", "method=linear_probe", "~backbone.build.image_size")
    with pytest.raises(InputError, match=r"dtype=bf16: .* has no frozen matrix that could be stored in it"):
        build_run(typed(tiny_run(*convolutions, "+backbone.build.dtype=bf16")))


def test_dropout_is_shared_by_prompts_where_they_drop_something(tiny_run):
    shared, tiny = "+backbone.build.shared_dropout=true", ("backbone=kravl_tiny",)
    run = build_run(typed(tiny_run("method=lora", "adapter.dropout=0.5", shared, backbone=tiny)))
    run.classifier.train().encode_text()
    assert len(run.classifier._prompts._trees) == 1

    for nothing in (["method=lora"], ["method=kra"], ["method=lora", "sites=vision", "adapter.dropout=0.5"]):
        with pytest.raises(InputError, match=r"shared_dropout=true: nothing in the text tower drops anything"):
            build_run(typed(tiny_run(*nothing, shared, backbone=tiny)))


def test_a_head_that_starts_from_nothing_is_always_trained(tiny_run):
    parts = build_run(typed(tiny_run("method=kra")))
    assert {"head.weight", "head.bias"} == parts.adapters.unfrozen.keys()
    assert len(parts.adapters.adapters) == 18


def test_full_fine_tuning_trains_every_parameter_and_leaves_none_out(tiny_run):
    parts = build_run(typed(tiny_run("method=full")))
    names = {name for name, _ in parts.classifier.encoder().named_parameters() if "adapters" not in name}
    adapted = {f"{site.removesuffix('.qkv')}.qkv.weight" if site.endswith("qkv") else f"{site}.weight"
               for site in parts.adapters.adapters}  # fmt: skip
    assert names == adapted | parts.adapters.unfrozen.keys()


def test_a_seed_decides_the_initial_weights(tiny_run):
    first, again, other = (
        torch.cat([p.flatten() for p in build_run(typed(tiny_run(f"seed={seed}"))).classifier.parameters()])
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_images_drawn_depend_on_the_split_seed_alone(tiny_run):
    def drawn(*overrides: str) -> str:
        return build_run(typed(tiny_run("shots=2", *overrides))).data.split_sha256

    assert drawn("seed=1", "split_seed=1") == drawn("seed=2", "split_seed=1")
    assert drawn("split_seed=1") != drawn("split_seed=2")
    assert drawn("seed=2") == drawn("split_seed=2")  # alone, the seed draws the images too, as CoOp's seeds do


def test_checkpointing_keeps_less_and_changes_no_gradient(tiny_run):
    def gradients(*overrides: str) -> tuple[int, list[torch.Tensor]]:
        classifier = build_run(typed(tiny_run(*overrides))).classifier.train()
        images, kept = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            loss = classifier(images).square().sum() + classifier(images).sum()
        loss.backward()
        return sum(kept), [p.grad for p in classifier.parameters() if p.requires_grad]

    plain_size, plain = gradients()
    size, checkpointed = gradients("checkpointing=true")

    assert size < 0.5 * plain_size
    assert len(plain) == len(checkpointed)
    assert all(torch.equal(a, b) for a, b in zip(checkpointed, plain, strict=True))


def test_a_model_without_blocks_cannot_be_checkpointed(tiny_run):
    with pytest.raises(InputError, match="checkpointing=true: gradient checkpointing not supported in"):
        build_run(
            typed(
                tiny_run(
                    "checkpointing=true",
                    "sites=null",
                    "backbone.build.name=pit_ti_224",
                    "backbone.build.image_size=null",
                )
            )
        )


def test_a_set_of_one_class_is_refused_before_weights_unless_nothing_is_trained(tiny_run, tmp_path):
    for split in ("train", "test"):
        (tmp_path / "one" / split / "ant").mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "one" / split / "ant" / f"{i}.png")
    one = f"data.root={tmp_path}/one/train"

    with pytest.raises(InputError, match=r"folder has one class, 'ant': .*nothing is learned; add a second class"):
        build_run(typed(tiny_run(one, "backbone.build.pretrained=/no/weights")))
    assert build_run(typed(tiny_run(one, "optim.epochs=0"))).classifier.class_names == ("ant",)
