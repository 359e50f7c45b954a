"""One model adapted for real, held against the library's own forward and plain autograd, in float64."""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import torch
from breadth.families import build
from breadth.survey import FAILURES, Row
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from kravl.adapters.injection.adapter_set import AdapterSet
from kravl.adapters.injection.inject import inject
from kravl.adapters.injection.serialization import load_adapters, save_adapters
from kravl.adapters.injection.sites import select_sites
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.backbones.classifier import Classifier
from kravl.backbones.structure.presets import select
from kravl.runtime.errors import InputError, first_line

# logits are cast to float32, whose rounding is 6e-8 of them; a wrong formula is off by thousands of that
TOLERANCE = 1e-5
METHODS = {"all": KRAdapter, "cliplora": partial(LoRA, rank=2, alpha=2)}
STD = 0.15  # of an adapter's factors, so that updates are of the size of the weights
VANISHING = 1e-6  # of the largest gradient: what is compared is not smaller, as the logits are of float32
ROUNDING = 1e-12  # of the largest gradient: below it there is the rounding of float64 alone


class _Library(nn.Module):
    """Logits by the library's own forward passes alone."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.model: Any = classifier.encoder()
        prompts: Any = getattr(classifier, "_prompts", None)
        self._tokens: Tensor | None = None if prompts is None else prompts.tokens
        self._classes = len(classifier.class_names)

    def forward(self, images: Tensor) -> Tensor:
        if self._tokens is None:
            return self.model(images)
        prompts = F.normalize(self.model.encode_text(self._tokens), dim=-1).unflatten(0, (self._classes, -1))
        classes = F.normalize(prompts.mean(dim=1), dim=-1)
        return 100 * F.normalize(self.model.encode_image(images), dim=-1) @ classes.T


def compared(row: Row, folder: Path) -> Row:
    """What was measured on the model of ``row``, or a small one of its kind; a failure says why."""
    result: Row = {"family": row["family"], "model": row["name"], "failed": "", "presets": {}}
    begin = process_time()
    try:
        for preset, make in METHODS.items():
            classifier = build(row, folder / "model")
            chosen = _chosen(classifier.encoder(), preset)
            if chosen:
                result["presets"][preset] = measure(classifier, make, chosen, folder)
    except FAILURES as error:
        result["failed"] = first_line(error)
    if not result["presets"] and not result["failed"]:
        result["failed"] = "no preset selects anything"
    result["seconds"] = round(process_time() - begin, 2)
    return result


def _chosen(encoder: nn.Module, preset: str) -> list[str]:
    try:
        return list(select(encoder, preset))
    except InputError:
        return []


def measure(classifier: Classifier, make: Any, sites: Sequence[str], folder: Path) -> Row:
    """Relative differences of logits and gradients, and how many adapters a step of training leaves as they were.

    Those whose weight has no gradient in the library either are counted apart: the model does not depend on it.
    """
    images = _images(classifier)
    twin, library = copy.deepcopy(classifier), _Library(copy.deepcopy(classifier))
    with torch.no_grad():
        expected = library(images)
    adapters = inject(classifier.encoder(), make, sites)
    result: Row = {"sites": len(adapters.adapters)}
    result["start"] = relative(_logits(classifier, images), expected)
    left, idle = _left_by_a_step(classifier, adapters, images), _without_gradient(library, adapters, images)
    result |= {"unchanged": len(left - idle), "without_gradient": len(left & idle)}
    torch.manual_seed(1)
    for parameter in adapters.parameters():
        nn.init.normal_(parameter, std=STD)
    adapted = _logits(classifier, images)
    result["changed"] = relative(adapted, expected)
    gradients, dense = _gradients(classifier, adapters, images), _dense_gradients(library, adapters, images)
    least = VANISHING * max(float(gradient.abs().max()) for gradient in dense)
    result["gradients"] = max(relative(*pair, least) for pair in zip(gradients, dense, strict=True))
    adapters.merge()
    result["merged"] = relative(_logits(classifier, images), adapted)
    adapters.unmerge()
    save_adapters(adapters, folder / "adapter.safetensors")
    load_adapters(inject(twin.encoder(), make, sites), folder / "adapter.safetensors")
    result["loaded"] = relative(_logits(twin, images), _logits(classifier, images))
    return result


def within(result: Row) -> list[str]:
    """What of a preset's numbers is not as it should be."""
    wrong = [f"{what} {result[what]:.1e}" for what in ("start", "gradients", "merged") if result[what] > TOLERANCE]
    wrong += [f"{result['unchanged']} adapters are left by a step"] if result["unchanged"] else []
    wrong += [f"loaded {result['loaded']:.1e}"] if result["loaded"] else []
    return wrong + ([] if result["changed"] > 10 * TOLERANCE else ["the adapters change nothing"])


def relative(ours: Tensor, expected: Tensor, least: float = 1e-30) -> float:
    """The largest difference, relative to the largest value that is expected, which counts as ``least`` or more."""
    return float((ours.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(least))


def _images(classifier: Classifier) -> Tensor:
    size = classifier.preprocess.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return torch.rand(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def _logits(classifier: Classifier, images: Tensor) -> Tensor:
    classifier.eval().prepare()
    return classifier(images)


def _loss(logits: Tensor) -> Tensor:
    """In which every logit counts differently."""
    weights = torch.randn(logits.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return (logits.double() * weights).sum()


def _gradients(classifier: Classifier, adapters: AdapterSet, images: Tensor) -> list[Tensor]:
    """By kravl's own forward and backward passes, without dropout."""
    classifier.eval().training = True  # the text is encoded with its gradient, and nothing is dropped
    return list(torch.autograd.grad(_loss(classifier(images)), adapters.parameters()))


def _dense_gradients(library: _Library, adapters: AdapterSet, images: Tensor) -> list[Tensor]:
    """By autograd through the library's forward pass with W + ΔW in place of each weight W."""
    names = {id(parameter): name for name, parameter in library.named_parameters()}
    weights: dict[str, Tensor] = {}
    for site in select_sites(library.model, list(adapters.adapters)):
        name = names[id(site.parameter)]
        adapter = adapters.adapters[site.name]
        base = weights.get(name, site.parameter.detach())
        update = torch.zeros_like(base).flatten(1)
        rows = torch.arange(*site.rows.indices(len(base)))
        delta = adapter.scale * adapter.delta_weight()
        weights[name] = base + update.index_add(0, rows, delta).view(base.shape)
    logits = functional_call(library, weights, (images,))
    return list(torch.autograd.grad(_loss(logits), adapters.parameters()))


def _without_gradient(library: _Library, adapters: AdapterSet, images: Tensor) -> set[str]:
    """Adapters of weights that the library's own logits do not depend on, but for rounding.

    As q and k after a layer norm of one channel (timm's csatv2), which makes every token the same.
    """
    sites = select_sites(library.model, list(adapters.adapters))
    weights = list({id(site.parameter): site.parameter for site in sites}.values())
    with torch.enable_grad():
        found = torch.autograd.grad(_loss(library.eval()(images)), weights)
    gradients = {id(weight): gradient for weight, gradient in zip(weights, found, strict=True)}
    largest = {
        site.name: float(gradients[id(site.parameter)][slice(*site.rows.indices(len(site.parameter)))].abs().max())
        for site in sites
    }
    least = ROUNDING * max(largest.values())
    return {name for name, size in largest.items() if size < least}


def _left_by_a_step(classifier: Classifier, adapters: AdapterSet, images: Tensor) -> set[str]:
    """Adapters whose parameters are the same after one step of training; what the step did is undone.

    Nothing is dropped at random: a block that is left out of a pass would leave its adapters as they are.
    """
    before = {name: tensor.clone() for name, tensor in adapters.state_dict().items()}
    classifier.eval().training = True
    optimizer = torch.optim.SGD(adapters.parameters(), lr=1.0)
    _loss(classifier(images)).backward()  # linear in the logits: cross entropy has no gradient where it is certain
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    after = adapters.state_dict()
    left = {
        site
        for site in adapters.adapters
        if all(torch.equal(before[name], after[name]) for name in after if name.rpartition(".")[0] == site)
    }
    adapters.load_state_dict(before)
    return left
