"""ONNX files (https://onnx.ai) for onnxruntime: the classifier, and of a CLIP each of its towers; any batch."""

import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from kravl.config.schema import Config
from kravl.export.pictures import copy_pictures, example_images, without_fast_path
from kravl.export.plain import ImageFeatures, PlainModel, TextFeatures
from kravl.runtime.errors import InputError, first_line

HOLDS_HEADS = True
TOLERANCE = 1e-3  # of other kernels than torch's
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
LARGEST = 2**31 - 2**20  # bytes of one file, which protobuf limits to 2 GiB


class Probabilities(nn.Module):
    """Images to probabilities and logits, each (b, C); the former of logits that are divided by a temperature."""

    def __init__(self, classifier: nn.Module, temperature: float) -> None:
        super().__init__()
        self.classifier, self.temperature = classifier, temperature

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.classifier(images)
        return (logits / self.temperature).softmax(dim=1), logits


def require(cfg: Config, method: str | None, alpha: float) -> None:
    """Raise InputError where a package is missing."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise InputError(f"--to onnx needs {', '.join(missing)}: pip install 'kravl[onnx]'")


def write(model: PlainModel, folder: Path) -> list[str]:
    """classifier.onnx with the classes baked in, and image_encoder.onnx and text_encoder.onnx of a CLIP."""
    copy_pictures(folder)
    images = example_images(model)
    classifier = Probabilities(model.classifier(), model.temperature)
    _export(classifier, ("images", images), ("probabilities", "logits"), folder / "classifier.onnx")
    if not model.is_clip:
        return []
    _export(ImageFeatures(model.encoder), ("images", images), ("features",), folder / "image_encoder.onnx")
    tokens = model.clip.tokenizer(["a", "b"])
    _export(TextFeatures(model.encoder), ("tokens", tokens), ("features",), folder / "text_encoder.onnx")
    name = model.settings["name"]
    return [f"onnx holds no tokenizer: text_encoder.onnx takes the tokens of open_clip's tokenizer of {name}"]


def _export(module: nn.Module, given: tuple[str, Tensor], outputs: tuple[str, ...], path: Path) -> None:
    """Raises InputError where ONNX lacks an operator."""
    name, example = given
    batch = torch.export.Dim("batch", min=1, max=2**16)
    external = sum(p.numel() * p.element_size() for p in module.parameters()) > LARGEST
    try:
        with without_fast_path(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's and onnxscript's own code
            torch.onnx.export(
                module.eval(),
                (example,),
                path,
                input_names=[name],
                output_names=list(outputs),
                dynamic_shapes=({0: batch},),
                external_data=external,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(f"{path.stem} cannot be written as ONNX: {first_line(error)}") from error
