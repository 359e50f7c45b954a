"""What pretrained weights expect of an image, as open_clip and timm have it, or as the user says of weights at a path.

An image that is resized, cropped or normalised otherwise than in pretraining silently costs accuracy.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import open_clip
import timm

from kravl.runtime.errors import InputError, unknown

Size = int | tuple[int, int]  # in pixels: of both sides, or (height, width)
INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming")
RESIZE_MODES = {"center": "shortest", "border": "longest", "squash": "squash"}  # timm's word to open_clip's
LISTED = 3


@dataclass(frozen=True)
class Preprocess:
    """What the pretrained tower expects of an image: sizes in pixels, mean and std of the RGB channels in [0, 1].

    Raises:
        InputError: a value that no image can be prepared with.
    """

    image_size: Size
    resize: Size  # before the centre crop to image_size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize_mode: str = "shortest"  # shortest: covers `resize`; longest: lies within it; squash: is it
    fill: tuple[int, int, int] = (0, 0, 0)  # colour of what lies outside of the resized image

    def __post_init__(self) -> None:
        for size in (self.image_size, self.resize):
            if any(type(side) is not int or side < 1 for side in _sides(size)):
                raise InputError(f"an image of {str(size)[:80]} pixels: a size is a whole number of at least 1")
        if len(self.fill) != 3 or any(type(value) is not int or not 0 <= value <= 255 for value in self.fill):
            raise InputError(f"a fill colour of {str(self.fill)[:80]} is not three whole numbers from 0 to 255")
        check_values(asdict(self))

    def recorded(self) -> dict[str, Any]:
        """As JSON has it, lists for tuples: an adapter's file and a record are compared with this."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Stated:
    """What the user says of weights at a path; None where nothing is said.

    Raises:
        InputError: a value that no image can be prepared with.
    """

    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    interpolation: str | None = None
    resize_mode: str | None = None

    def __post_init__(self) -> None:
        check_values(self.values())

    def values(self) -> dict[str, Any]:
        """What is said, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: _plain(value) for key, value in values.items() if value is not None}

    def check(self, known: Mapping[str, Any], weights: str) -> None:
        """Raise InputError where ``weights`` are ``known`` to expect something else."""
        for key, value in self.values().items():
            if known[key] != value:
                raise InputError(f"{key}={_written(value)} contradicts {weights}, which expects {_written(known[key])}")

    def complete(self, candidates: Mapping[str, Mapping[str, Any]], name: str, hint: str = "") -> dict[str, Any]:
        """What weights at a path of the model ``name`` expect: as said, and else as all of its published weights do.

        Args:
            candidates: tag -> what these published weights expect.
            hint: what could be passed besides.

        Raises:
            InputError: the published weights disagree on what is not said, or the mean is said without its std, or the
                other way round, and no published weights have it.
        """
        self._check_pair(candidates, name)
        open_keys = [field.name for field in fields(self) if getattr(self, field.name) is None]
        tags = defaultdict(list)
        for tag, known in candidates.items():
            tags[tuple((key, known[key]) for key in open_keys)].append(tag)
        if len(tags) <= 1:
            return self.values() | dict(next(iter(tags), ()))
        differing = [key for key in open_keys if len({known[key] for known in candidates.values()}) > 1]
        options = " or ".join(
            f"{_settings({key: dict(values)[key] for key in differing})} (as {_listed(names)})"
            for values, names in tags.items()
        )
        raise InputError(
            f"the published weights of {name} expect different images: pass what these weights were trained with"
            f"{hint}: {options}; the wrong one silently costs accuracy"
        )

    def check_both(self, name: str) -> None:
        """Raise InputError where mean or std alone is to stand in for that of the model in a folder or on the hub."""
        given = [key for key in ("mean", "std") if key in self.values()]
        if len(given) == 1:
            raise InputError(f"{given[0]} is given for {name!r}, whose config has mean and std: pass both, or neither")

    def _check_pair(self, candidates: Mapping[str, Mapping[str, Any]], name: str) -> None:
        values = self.values()
        for key, other in (("mean", "std"), ("std", "mean")):
            if key in values and other not in values and all(c[key] != values[key] for c in candidates.values()):
                raise InputError(
                    f"{key}={_written(values[key])} is that of no published weights of {name}, so that their {other} "
                    f"need not be that of these weights: pass backbone.build.{other}=[R,G,B] too"
                )


def check_values(values: Mapping[str, Any]) -> None:
    """Raise InputError where mean, std, interpolation or resize mode are none, whoever says so."""
    for key in ("mean", "std"):
        value = values.get(key)
        if value is None:
            continue
        numbers = isinstance(value, Sequence) and [isinstance(v, int | float) and 0 <= v <= 1 for v in value]
        if not numbers or len(numbers) != 3 or not all(numbers) or (key == "std" and 0 in value):
            legal = "above 0 and at most 1" if key == "std" else "from 0 to 1"
            raise InputError(
                f"{key}={_written(_plain(value))[:80]} is not three numbers {legal}, of red, green and blue"
            )
    for key, names in (("interpolation", INTERPOLATIONS), ("resize_mode", tuple(RESIZE_MODES.values()))):
        if key in values and values[key] not in names:
            raise unknown(key, values[key], names)


def clip_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `Stated` in an open_clip config of weights, with open_clip's defaults for what it lacks."""
    merged = open_clip.transform.merge_preprocess_dict(open_clip.transform.PreprocessCfg(), dict(config))
    return {field.name: _plain(merged[field.name]) for field in fields(Stated)}


def clip_candidates(name: str) -> dict[str, dict[str, Any]]:
    """What the published weights of an open_clip model expect, by tag."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    return {tag: clip_settings(open_clip.get_pretrained_cfg(name, tag)) for tag in tags}


def clip_preprocess(config: Mapping[str, Any]) -> Preprocess:
    """What open_clip's ``image_transform_v2`` does with this ``preprocess_cfg`` of a model.

    Raises:
        InputError: open_clip cannot do it.
    """
    values = {key: _plain(value) for key, value in config.items()}
    size = values["size"]
    size = size[0] if isinstance(size, tuple) and size[0] == size[-1] else size
    interpolation = "bilinear" if values["interpolation"] == "bilinear" else "bicubic"
    if values["interpolation"] not in ("bicubic", "bilinear", "random"):
        raise unknown("interpolation of open_clip", values["interpolation"], ("bicubic", "bilinear", "random"))
    if isinstance(size, tuple) and values["resize_mode"] == "shortest":
        interpolation = "bicubic"  # open_clip passes no other to this case
    fill = (values["fill_color"],) * 3
    mean, std = (value if isinstance(value, tuple) else (value,) * 3 for value in (values["mean"], values["std"]))
    return Preprocess(size, size, mean, std, interpolation, values["resize_mode"], fill)


def timm_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `Stated` in a timm config of weights."""
    known = timm.data.resolve_data_config({}, pretrained_cfg=dict(config))
    crop_mode = RESIZE_MODES.get(str(known["crop_mode"]), "shortest")
    mean, std = _plain(known["mean"]), _plain(known["std"])
    return {"mean": mean, "std": std, "interpolation": known["interpolation"], "resize_mode": crop_mode}


def timm_candidates(architecture: str) -> dict[str, dict[str, Any]]:
    """What timm's weights of an architecture expect, by tag."""
    configs = {
        name.partition(".")[2]: timm.get_pretrained_cfg(name) for name in timm.list_pretrained(f"{architecture}.*")
    }
    return {tag: timm_settings(config.to_dict()) for tag, config in configs.items() if config is not None}


def timm_preprocess(config: Mapping[str, Any], stated: Mapping[str, Any], image_size: Size | None = None) -> Preprocess:
    """What timm's ``create_transform`` does with this ``pretrained_cfg`` of a model.

    Args:
        stated: values of `Stated` in place of the config's.
        image_size: in place of the config's.

    Raises:
        InputError: timm cannot do it.
    """
    known = timm.data.resolve_data_config({}, pretrained_cfg=dict(config))
    values = {**timm_settings(config), **stated}
    size = _sides(known["input_size"][-2:] if image_size is None else image_size)
    resize = [math.floor(side / known["crop_pct"]) for side in size]
    fill = tuple(round(255 * value) for value in values["mean"]) if values["resize_mode"] == "longest" else (0, 0, 0)
    return Preprocess(_size(size), _size(resize), fill=fill, **values)


def _sides(size: Size | Sequence[int]) -> Sequence[int]:
    return size if isinstance(size, list | tuple) else (size, size)


def _size(sides: Sequence[int]) -> Size:
    height, width = sides
    return height if height == width else (height, width)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _written(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def _settings(values: Mapping[str, Any]) -> str:
    return " ".join(f"backbone.build.{key}={_written(value)}" for key, value in values.items())


def _listed(names: Sequence[str]) -> str:
    further = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + further
