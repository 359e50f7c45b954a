"""Pretrained weights: whether they are cached, can be downloaded, and are safe to load."""

import json
import socket
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from kravl.backbones.weights.checkpoint import blocked_names, container, load_content
from kravl.backbones.weights.file_kinds import odd_file
from kravl.runtime.errors import InputError, first_line
from kravl.runtime.files import refuse_endless

NUMPY = (".npz", ".npy")
TOKENIZER = {"clean", "strip_sep_token", "language", "context_length"}  # what a folder's config may set of it
LOCAL_WEIGHTS = ("*.safetensors", "*.bin", "*.pth")  # where open_clip looks in a folder
TIMEOUT_SECONDS = 5.0
MOST_CODE = 64 * 2**20  # bytes; the code of a ViT-L with its debugging records is below 10 MB
INSTEAD = "connect to the network once, or pass backbone.build.pretrained=/path/to/weights.safetensors"
# what torch.load and safetensors raise on damaged or other files (found by mutating 3,000 checkpoints)
LOAD_ERRORS = (
    *(RuntimeError, ValueError, KeyError, TypeError, IndexError, EOFError, OSError),
    *(UnpicklingError, SafetensorError),
)


class WeightFile(NamedTuple):
    """Weights by the name that a person knows them by; without a path they are to be downloaded."""

    name: str
    path: Path | None


class _HostileError(Exception):
    """Why the file is refused."""


def check_weights(path: Path) -> None:
    """Read ``path`` and check that it holds tensors by name.

    Raises:
        InputError: it holds anything else, is damaged, or has members that unpack to more than the size of the file.
    """
    refuse_endless(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles that are refused, or loaded again later
            _check(path)
    except UnpicklingError as error:  # its message explains how to load the file anyway
        names = blocked_names(path)
        listed = f" ({', '.join(names)[:200]})" if names else ""
        reason = f"it is damaged, or a pickle of more than tensors{listed}, which may run code"
        raise InputError(
            f"{path} is refused: {reason}; save the model's state_dict alone as a .safetensors file"
        ) from error
    except (*LOAD_ERRORS, zipfile.BadZipFile, AttributeError, RecursionError, _HostileError) as error:
        raise InputError(f"{path} is refused, as it is not a plain file of weights: {first_line(error)}") from error


def _check(path: Path) -> None:
    if odd := odd_file(path):
        raise _HostileError(odd)
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
        if not names:
            raise _HostileError("it holds no tensor")
    elif path.suffix in NUMPY:
        _check_numpy(path)
    else:
        _check_pickled(path)


def check_files(folder: Path, patterns: Sequence[str], library: str) -> None:
    """Check every file of weights in ``folder`` where ``library`` looks for them.

    Raises:
        InputError: a file is refused by `check_weights`, or there is none.
    """
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    if not files:
        raise InputError(f"no weights in {folder}; {library} looks for {', '.join(patterns)}")
    for file in files:
        check_weights(file)


def check_model_config(config: Any, what: str) -> None:
    """Raise InputError where an open_clip config ``what`` would load more than the weights beside it."""
    model = config.get("model_cfg") if isinstance(config, dict) else None
    text, vision = ((model.get(key, {}) if isinstance(model, dict) else None) for key in ("text_cfg", "vision_cfg"))
    if not isinstance(text, dict) or not isinstance(vision, dict):
        raise InputError(f"{what} describes no model: it needs model_cfg with text_cfg and vision_cfg")
    tokenizer = text.get("tokenizer_kwargs") or {}
    if not isinstance(tokenizer, dict) or tokenizer.keys() - TOKENIZER or "trust_remote_code" in json.dumps(config):
        raise InputError(f"{what} is refused: its tokenizer may set {sorted(TOKENIZER)}, not {str(tokenizer)[:80]}")
    for name in (text.get("hf_model_name"), vision.get("timm_model_name")):
        if name is not None and (not isinstance(name, str) or ":" in name or name.startswith((".", "/"))):
            raise InputError(f"{what} is refused: its tower is {str(name)[:80]!r}, not the name of a model")


def _check_numpy(path: Path) -> None:
    content = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(content, np.lib.npyio.NpzFile):
        with zipfile.ZipFile(path) as zipped:
            _refuse_growth(zipped, path, stored=False)
        if objects := [name for name in content.files if content[name].dtype.hasobject]:
            raise _HostileError(f"{objects[0]!r} holds objects")


def _check_pickled(path: Path) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as zipped:
            _refuse_growth(zipped, path, stored=True)
    content = load_content(path)
    if (keys := container(content)) is None:
        raise _HostileError(f"it holds a {type(content).__name__}{_listed(content)}, not tensors by name")
    for key in keys:
        content = content[key]
    if strange := [name for name in content if not isinstance(name, str)]:
        raise _HostileError(f"{strange[0]!r} is not the name of a tensor")


def _listed(content: Any) -> str:
    return f" of {[str(key)[:40] for key in content][:8]}" if isinstance(content, Mapping) else ""


def _refuse_growth(zipped: zipfile.ZipFile, path: Path, stored: bool) -> None:
    """torch stores tensors uncompressed; compressed or overlapping ones are a zip bomb.

    The code of a TorchScript archive is compressed, and never read here.
    """
    members = zipped.infolist()
    code = sum(member.file_size for member in members if member.filename.split("/")[1:2] == ["code"])
    if code > MOST_CODE:
        raise _HostileError(f"its code unpacks to {code:,} bytes; at most {MOST_CODE:,} are read")
    size = sum(member.file_size for member in members) - code
    limit = path.stat().st_size * (1 if stored else 20)
    if size > limit:
        raise _HostileError(f"its members unpack to {size:,} bytes from a file of {path.stat().st_size:,}")


def require_hub_file(repo: str, filenames: Sequence[str], what: str, instead: str = INSTEAD) -> None:
    """Check that one of ``filenames`` of ``repo`` is cached, or that the hub can be reached.

    Args:
        what: the weights as the user named them, for the message.
        instead: what to do, for the message.

    Raises:
        InputError: nothing is cached and the hub does not answer (the libraries would retry for a minute).
    """
    if any(isinstance(try_to_load_from_cache(repo, filename), str) for filename in filenames):
        return
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else unreachable(constants.ENDPOINT)
    if reason:
        raise InputError(f"{what} ({repo}) is not in the local cache and cannot be downloaded: {reason}; {instead}")


def hub_file(repo: str, filenames: Sequence[str]) -> WeightFile:
    """The first of ``filenames`` of ``repo`` that is in the local cache; nothing is asked of the hub."""
    cached = (try_to_load_from_cache(repo, filename) for filename in filenames)
    return WeightFile(repo, next((Path(path) for path in cached if isinstance(path, str)), None))


def folder_files(folder: Path, patterns: Sequence[str]) -> list[WeightFile]:
    """The files of weights in a ``folder``."""
    return [WeightFile(str(file), file) for pattern in patterns for file in sorted(folder.glob(pattern))]


def unreachable(url: str) -> str | None:
    """Why the host of ``url`` does not answer within five seconds, or None if it does."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=TIMEOUT_SECONDS).close()
    except OSError as error:
        return f"{parts.hostname} does not answer ({error})"
    return None
