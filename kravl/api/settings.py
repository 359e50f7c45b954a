"""From the arguments of a call to the config of a run, by the same way as from a command line."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kravl.config.compose import compose_checked, composing, register_configs
from kravl.config.quoting import as_overrides, quoted
from kravl.config.schema import CONFIGS
from kravl.runtime.errors import InputError, unknown
from kravl.runtime.yaml_files import read_yaml

PREFERRED = "openai"  # of several shipped weights of one model
GENERIC = {"open_clip": "clip_vitb16", "timm": "vit_b16"}  # a backbone of the library, for other models of it


def compose_run(settings: Mapping[str, Any]) -> Any:
    """The composed and checked config of `kravl train` with these ``settings``, dotted keys and Python's values.

    Raises:
        InputError: as the command, in the same words.
    """
    register_configs()
    arguments = as_overrides([_argument(key, value) for key, value in settings.items()], "train")
    with composing():
        return compose_checked(arguments, "train")


def _argument(key: str, value: Any) -> str:
    if isinstance(value, str) and (CONFIGS / key).is_dir():
        return f"{key}={value}"
    return f"{key}={_written(value)}"


def _written(value: Any) -> str:
    if isinstance(value, str | Path):
        return quoted("", str(value))[1:]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_written, value))}]"
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_written(item)}' for key, item in value.items())}}}"
    raise InputError(f"a setting is a text, a number, a list, a dict, True, False or None, not {type(value).__name__}")


def backbone_settings(model: str, pretrained: str | bool | None) -> dict[str, Any]:
    """The settings of a backbone by the name of a file of configs/backbone, or of a model of open_clip or timm.

    Args:
        pretrained: a tag, a path or, of timm, True; None: the weights of the shipped backbone, or timm's own.

    Raises:
        InputError: no such model, or one of open_clip of which the weights must be named.
    """
    shipped = {path.stem: read_yaml(path)["build"] for path in sorted((CONFIGS / "backbone").glob("*.yaml"))}
    weights = {} if pretrained is None else {"backbone.build.pretrained": pretrained}
    if model in shipped:
        return {"backbone": model, **weights}
    same = {name: build["pretrained"] for name, build in shipped.items() if build["name"] == model}
    fitting = [
        name for name, tag in same.items() if tag == pretrained or (pretrained is None and tag)
    ]  # not random ones
    if fitting:
        return {"backbone": next((name for name in fitting if same[name] == PREFERRED), fitting[0])}
    library = _library(model, shipped)
    build: dict[str, Any] = {"backbone": GENERIC[library], "backbone.build.name": model, **weights}
    if library == "timm":
        return {"backbone.build.pretrained": True, **build, "backbone.build.image_size": None}
    if pretrained is None and ":" not in model:
        ask = f"model={model!r}: name its weights as pretrained=, one of"
        build["backbone.build.pretrained"] = only_weights(model, ask)
    return build


def only_weights(model: str, ask: str) -> str | None:
    """The weights of a model of open_clip that has one set of them; None of one that has them in its name, or of none.

    Args:
        ask: what an error begins with.

    Raises:
        InputError: there are several, or none are published: random ones would score by chance.
    """
    import open_clip

    builds = [read_yaml(path)["build"] for path in sorted((CONFIGS / "backbone").glob("*.yaml"))]
    if ":" in model or model not in {*open_clip.list_models(), *(build.get("name") for build in builds)}:
        return None  # an unknown name is told as such
    own = [build["pretrained"] for build in builds if build.get("name") == model and build.get("pretrained")]
    tags = list(dict.fromkeys([*own, *open_clip.list_pretrained_tags_by_model(model)]))
    if len(tags) != 1:
        raise InputError(f"{ask} {' | '.join(map(str, tags)) or 'FILE'}")
    return str(tags[0])


def _library(model: str, shipped: Sequence[str] | Mapping[str, Any]) -> str:
    import open_clip
    import timm

    if model in open_clip.list_models() or model.startswith(("hf-hub:", "local-dir:")):
        return "open_clip"
    if model.partition(".")[0] in timm.list_models():
        return "timm"
    raise unknown("model", model, [*shipped, *open_clip.list_models(), *timm.list_models()])


def data_settings(data: str | Path) -> dict[str, Any]:
    """The settings of a data set by a folder, a table, or the name of a file of configs/data.

    Raises:
        InputError: none of them.
    """
    path, names = Path(data), [file.stem for file in (CONFIGS / "data").glob("*.yaml")]
    if path.is_dir():
        return {"data": "folder", "data.root": str(path)}
    if path.is_file():
        return {"data": "table", "data.file": str(path)}
    if str(data) in names:
        return {"data": str(data)}
    raise InputError(
        f"data={str(data)[:200]!r} is no folder, no table and no data set: {unknown('data set', data, names)}"
    )
