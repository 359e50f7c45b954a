"""transformers models: what PEFT's own tests leave out for newcomers, and what users do with an adapted model."""

import copy
import warnings
from pathlib import Path

import peft
import peft_models
import pytest
import torch
from packaging.version import Version
from peft import PeftModel, get_peft_model, inject_adapter_in_model
from peft.tuners.lora.conversion import convert_to_lora
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from transformers.integrations.peft import MIN_PEFT_VERSION

import kravl.peft
from kravl.peft import KRAdapterConfig, hotswap_adapter

TOO_OLD = Version(peft.__version__) < Version(MIN_PEFT_VERSION)
IDS = torch.arange(12).view(2, 6) + 5


def adapted(model, **kwargs):
    settings = {"target_modules": "all-linear", "init_weights": False, "task_type": "CAUSAL_LM"} | kwargs
    return get_peft_model(model, KRAdapterConfig(**settings)).eval()


def logits(model, **kwargs):
    with torch.no_grad():
        return model(input_ids=IDS, **kwargs).logits


def test_a_decoder_starts_at_the_base_merges_and_unloads(decoder):
    before = logits(decoder)
    assert torch.equal(logits(adapted(copy.deepcopy(decoder), init_weights=True)), before)
    model = adapted(copy.deepcopy(decoder))
    changed = logits(model)
    assert not torch.allclose(changed, before, atol=1e-3)
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), before)
    model.merge_adapter()
    torch.testing.assert_close(logits(model), changed)
    model.unmerge_adapter()
    assert torch.equal(logits(model), changed)

    merged = model.merge_and_unload(safe_merge=True)

    torch.testing.assert_close(logits(merged), changed)
    assert list(merged.state_dict()) == list(decoder.state_dict())


@pytest.mark.parametrize("beams", [1, 3])
def test_a_mixed_batch_gives_each_sample_its_adapter(decoder, beams):
    base = copy.deepcopy(decoder)
    model = adapted(decoder)
    model.add_adapter("other", KRAdapterConfig(target_modules="all-linear", init_weights=False))
    model.eval()
    ids = IDS[:1].expand(4, -1)
    names = ["default", "__base__", "other", "default"]

    with torch.no_grad():
        mixed = model(input_ids=ids, adapter_names=names).logits
    words = model.generate(input_ids=ids, adapter_names=names, num_beams=beams, max_new_tokens=4, do_sample=False)

    alone = {"__base__": (base, logits(base))}
    for name in ("default", "other"):
        model.set_adapter(name)
        alone[name] = model, logits(model)
        # generated before the adapter changes
        alone[name] += (model.generate(input_ids=IDS[:1], num_beams=beams, max_new_tokens=4, do_sample=False),)
    alone["__base__"] += (base.generate(input_ids=IDS[:1], num_beams=beams, max_new_tokens=4, do_sample=False),)
    for row, name in enumerate(names):
        torch.testing.assert_close(mixed[row], alone[name][1][0])
        assert torch.equal(words[row], alone[name][2][0])


def test_beam_search_repeats_the_names_behind_the_encoder_alone():
    model = get_peft_model(peft_models.bart(), KRAdapterConfig(target_modules="all-linear", init_weights=False)).eval()
    names = ["default", "__base__"]
    words = model.generate(input_ids=IDS, adapter_names=names, num_beams=2, max_new_tokens=4)

    assert torch.equal(words[:1], model.generate(input_ids=IDS[:1], num_beams=2, max_new_tokens=4))
    with model.disable_adapter():
        assert torch.equal(words[1:], model.generate(input_ids=IDS[1:], num_beams=2, max_new_tokens=4))


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant):
    model = adapted(peft_models.llama()).train()

    def gradients():
        model.zero_grad()
        model(input_ids=IDS, labels=IDS).loss.backward()
        return [p.grad.clone() for p in model.parameters() if p.requires_grad]

    expected = gradients()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    for ours, plain in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(ours, plain)


@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_a_compiled_model_is_one_graph_and_keeps_its_code_when_the_adapter_is_exchanged(tmp_path):
    base = peft_models.llama()
    plain = copy.deepcopy(base)
    model = adapted(base, target_modules=["q_proj", "up_proj"])
    torch.manual_seed(1)
    other = adapted(plain, target_modules=["q_proj", "up_proj"])
    other.save_pretrained(tmp_path)
    frames = []

    def counting(graph, inputs):
        frames.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=counting, fullgraph=True, dynamic=False)
    torch.testing.assert_close(logits(compiled), logits(model))
    before = logits(model)
    hotswap_adapter(compiled, str(tmp_path))

    torch.testing.assert_close(logits(compiled), logits(other))
    assert not torch.allclose(logits(other), before, atol=1e-3)
    assert len(frames) == 1


def test_compiled_gradients_are_the_same():
    model = adapted(peft_models.llama(), target_modules=["q_proj", "down_proj"]).train()
    model(input_ids=IDS, labels=IDS).loss.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    with warnings.catch_warnings(action="ignore"):
        torch.compile(model, backend="aot_eager")(input_ids=IDS, labels=IDS).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_small_update_of_a_half_precision_base_is_not_rounded_away(dtype):
    base = nn.Sequential(nn.Linear(64, 64, bias=False)).to(dtype)
    x = torch.randn(512, 64, dtype=dtype)
    model = get_peft_model(base, KRAdapterConfig(target_modules=["0"], init_weights=False))
    layer = model.base_model.model[0]
    adapter = layer.adapters("default")["weight"]
    assert adapter.dtype == torch.float32
    with torch.no_grad():
        adapter.u *= 1e-4  # ΔW of about 1e-5 beside weights of 0.07
        added = layer.added(adapter, x, x)
        exact = x.double() @ layer.get_delta_weight("default").double().T

    assert added.dtype == dtype
    assert (added.double() - exact).norm() < 0.01 * exact.norm()
    assert model(x).dtype == dtype
    # what adding ΔW to the weights leaves of it
    with pytest.warns(UserWarning, match=r"merging into (bfloat|float)16 weights lost [\d,]+% of the update"):
        model.merge_adapter()
    model.unmerge_adapter()
    assert torch.equal(base[0].weight if isinstance(base[0], nn.Linear) else base[0].base_layer.weight, layer.weight)


def test_a_base_that_needs_its_own_forward_keeps_it():
    base = nn.Sequential(nn.Linear(6, 4))
    x = torch.randn(3, 6)
    model = get_peft_model(base, KRAdapterConfig(target_modules=["0"], init_weights=False))
    expected = model(x)
    layer = model.base_model.model[0]
    seen = []
    layer.base_layer.register_forward_hook(lambda module, inputs, output: seen.append(output) or output + 1)

    torch.testing.assert_close(model(x), expected + 1)
    assert len(seen) == 1


def test_a_base_weight_that_trains_gets_its_gradient():
    base = nn.Sequential(nn.Linear(6, 4))
    model = get_peft_model(base, KRAdapterConfig(target_modules=["0"], init_weights=False))
    layer = model.base_model.model[0]
    layer.base_layer.requires_grad_(True)
    model(torch.ones(3, 6)).sum().backward()
    assert torch.equal(layer.base_layer.weight.grad, torch.full((4, 6), 3.0))
    assert torch.equal(layer.base_layer.bias.grad, torch.full((4,), 3.0))


def test_layers_are_chosen_as_peft_chooses_them():
    config = {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": 0, "layers_pattern": "layers"}
    model = adapted(peft_models.llama(), exclude_modules=["up_proj"], **config)
    assert model.base_model.targeted_module_names == ["model.layers.0.self_attn.q_proj"]
    default = adapted(peft_models.gpt2(), target_modules=None).base_model.targeted_module_names
    assert default == ["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"]


def test_loading_on_the_meta_device_gives_the_same_bits(tmp_path: Path):
    base = peft_models.llama()
    plain = copy.deepcopy(base)
    model = adapted(base)
    model.save_pretrained(tmp_path)

    loaded = PeftModel.from_pretrained(plain, tmp_path, low_cpu_mem_usage=True).eval()

    assert torch.equal(logits(loaded), logits(model))


def test_the_model_card_says_how_the_adapter_is_loaded(tmp_path: Path):
    model = adapted(peft_models.llama(), target_modules=["q_proj"])
    model.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "import kravl.peft  # pip install 'kravl[peft]'; adds KRADAPTER to PEFT" in card
    model.save_pretrained(tmp_path)  # PEFT reads the card that is there
    assert (tmp_path / "README.md").read_text() == card
    (tmp_path / "README.md").write_text("my own words")
    model.save_pretrained(tmp_path)
    assert "import kravl" not in (tmp_path / "README.md").read_text()


@pytest.mark.skipif(TOO_OLD, reason=f"transformers' own integration needs peft {MIN_PEFT_VERSION}")
def test_transformers_own_integration_adds_saves_and_loads(tmp_path: Path):
    model = peft_models.llama()
    plain = copy.deepcopy(model)
    model.add_adapter(KRAdapterConfig(target_modules=["q_proj"], init_weights=False))
    model.save_pretrained(tmp_path)
    plain.load_adapter(str(tmp_path))
    assert torch.equal(logits(plain), logits(model))
    plain.delete_adapter("default")
    assert not hasattr(plain, "peft_config")


def test_it_can_be_injected_without_a_wrapper():
    model = inject_adapter_in_model(KRAdapterConfig(target_modules=["q_proj"], init_weights=False), peft_models.llama())
    other = inject_adapter_in_model(KRAdapterConfig(target_modules=["q_proj"]), peft_models.llama())
    other.load_state_dict({k: v for k, v in model.state_dict().items() if "kradapter" not in k}, strict=False)
    set_peft_model_state_dict(other, get_peft_model_state_dict(model))
    assert torch.equal(logits(other), logits(model))


def test_it_converts_to_lora_of_full_rank():
    base = peft_models.llama()
    plain = copy.deepcopy(base)
    model = adapted(base, target_modules=["q_proj"])
    expected = logits(model)

    config, state = convert_to_lora(model, rank=64)

    lora = get_peft_model(plain, config)
    set_peft_model_state_dict(lora, state)
    torch.testing.assert_close(logits(lora.eval()), expected, rtol=1e-4, atol=1e-5)


def test_an_optimiser_step_lowers_the_loss_of_every_method(method):
    torch.manual_seed(0)
    model = get_peft_model(peft_models.llama(), method(target_modules="all-linear"))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(12):
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


def test_the_example_in_the_docstring_gives_what_it_shows():
    import doctest

    (example,) = doctest.DocTestFinder(recurse=False).find(kravl.peft.KRAdapterConfig, "KRAdapterConfig")
    assert not doctest.DocTestRunner().run(example).failed
