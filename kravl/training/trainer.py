"""Lightning's Trainer with kravl's settings, precision and callbacks."""

import inspect
import logging
import os
import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from kravl.runtime.errors import InputError, first_line, unknown
from kravl.training.checkpoint import SafeCheckpointIO
from kravl.training.fsdp import ShardedStrategy

AUTO, HALF, SINGLE = "auto", "bf16-mixed", "32-true"
X86 = ("x86_64", "AMD64")
log = logging.getLogger(__name__)
# Lightning's warnings that are of no use to a user: a deprecated call, advice that does not fit small sets, and frozen
# modules in eval mode where training begins again, after memory ran out or with a new stage
NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"The '\w+' does not have many workers",
    r"Precision bf16-mixed is not supported by the model summary",
    r"The number of training batches .* is smaller than the logging interval",
    r"Found \d+ module\(s\) in eval mode at the start of training",
)
SHARDED = ("fsdp_", "deepspeed", "model_parallel", "xla_fsdp")
FSDP = "fsdp"
NOTHING_LEFT = {
    "limit_train_batches": "nothing would be trained; optim.epochs=0 evaluates the model as it is",
    "limit_test_batches": "nothing would be evaluated; leave it out, or give a number from 1 up",
}
SHOWN = 60  # characters of a value in an error
FEW_PROCESSES = 8  # that any machine can run
SET_ELSEWHERE = {
    "max_epochs": "optim.epochs",
    "max_steps": "optim.steps",
    "logger": "tracking",
    "callbacks": "kravl/run/train.py",
    "default_root_dir": "runs",
    "enable_checkpointing": "checkpoint_every",
    "plugins": "kravl/run/train.py",
}
# Trainer takes them, and a run of kravl does not come to where they count
WITHOUT_EFFECT = {
    **dict.fromkeys(("min_epochs", "min_steps"), "optim.epochs and optim.steps say how long a run is"),
    **dict.fromkeys(
        ("check_val_every_n_epoch", "limit_val_batches", "num_sanity_val_steps", "val_check_interval"),
        "kravl evaluates after training alone",
    ),
}
PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}


def chosen_precision(settings: Mapping[str, Any]) -> Any:
    """As `precision_of`; a slow choice is told.

    On a CPU without instructions for it, a product in bfloat16 takes 40 to 500 times as long as in single precision
    (https://github.com/pytorch/pytorch/issues/146508): choosing it there logs a warning.
    """
    precision, accelerator = precision_of(settings), str(settings.get("accelerator", AUTO))
    if str(precision).startswith("bf16") and not multiplies_bfloat16(accelerator):
        log.warning(
            "trainer.precision=%s: this machine has no instructions for bfloat16 and takes many times as long as with "
            "%s; trainer.precision=%s chooses what suits the machine",
            precision,
            SINGLE,
            AUTO,
        )
    return precision


def precision_of(settings: Mapping[str, Any]) -> Any:
    """The ``precision`` of Trainer's ``settings``; auto is bf16-mixed on a device that supports it, else 32-true."""
    precision = settings.get("precision", SINGLE)
    if precision != AUTO:
        return precision
    return HALF if multiplies_bfloat16(str(settings.get("accelerator", AUTO))) else SINGLE


def multiplies_bfloat16(accelerator: str) -> bool:
    """Whether the device that Trainer takes for ``accelerator`` (auto, cpu, gpu, ...) has instructions for it."""
    if accelerator in (AUTO, "gpu", "cuda") and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator != "cpu" and (accelerator != AUTO or torch.backends.mps.is_available()):
        return False
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    return platform.machine() not in X86 or torch.cpu._is_avx512_bf16_supported()  # AVX512 alone emulates it


def limits(epochs: int | None, steps: int | None, steps_per_shot: int | None, shots: int | None) -> dict[str, int]:
    """How long to train, as Trainer's arguments: ``steps``, else ``steps_per_shot`` times ``shots``, else ``epochs``.

    Raises:
        InputError: none of them is given, or one is negative.
    """
    if steps is None and steps_per_shot is not None:
        if shots is None:
            raise InputError("optim.steps_per_shot needs shots; with shots=null give optim.steps")
        steps = steps_per_shot * shots
    if (length := epochs if steps is None else steps) is None or length < 0:
        raise InputError(f"optim.epochs={epochs}, optim.steps={steps}: one of them must be a number from 0 up")
    return {"max_epochs": length} if steps is None else {"max_steps": length, "max_epochs": -1}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise InputError for an argument that Trainer does not have, or that kravl sets itself or does not support."""
    if str(settings.get("strategy")).startswith(SHARDED):
        raise InputError(
            f"trainer.strategy={settings['strategy']} shards weights in a way that kravl cannot measure and save; "
            f"use ddp, or {FSDP} if memory is short"
        )
    if settings.get("strategy") == FSDP and str(settings.get("precision")).startswith("16"):
        raise InputError(
            f"trainer.strategy={FSDP} with trainer.precision={settings['precision']}: its scaler would see a part of "
            "the gradient in each process; use bf16-mixed"
        )
    for key in settings.keys() & WITHOUT_EFFECT.keys():
        log.info("trainer.%s: not used, %s", key, WITHOUT_EFFECT[key])
    for key, consequence in NOTHING_LEFT.items():
        if settings.get(key) == 0:
            raise InputError(f"trainer.{key}={settings[key]}: {consequence}")
    if settings.get("overfit_batches"):
        raise InputError(
            f"trainer.overfit_batches={settings['overfit_batches']} would change the order of images: lower shots"
        )
    _check_keys(settings)


def _check_keys(settings: Mapping[str, Any]) -> None:
    legal = inspect.signature(Trainer).parameters
    for key in settings:
        if key in SET_ELSEWHERE:
            raise InputError(f"trainer.{key} is set through {SET_ELSEWHERE[key]}")
        if key not in legal:
            raise unknown("key", f"trainer.{key}", [f"trainer.{name}" for name in legal if name not in SET_ELSEWHERE])
    hints = get_type_hints(inspect.unwrap(Trainer.__init__))
    for key, value in settings.items():
        _check_kind(key, value, hints[key])


def _check_kind(key: str, value: Any, hint: Any) -> None:
    """Raise InputError for a value that is of no kind which Trainer takes; it would fail at it, or take it for true."""
    kinds = [*_kinds(hint), *([AUTO] if key == "precision" else [])]
    if any(_is_of(value, kind) for kind in kinds):
        return
    if key == "precision":
        raise unknown(f"trainer.{key}", value, [str(kind) for kind in kinds if kind is not NoneType])
    words = [PLAIN[kind] for kind in kinds if kind in PLAIN]
    words += [repr(kind) for kind in kinds if not isinstance(kind, type) and kind is not None]
    if NoneType in kinds:
        words.append("null")
    raise InputError(f"trainer.{key}={str(value)[:SHOWN]}: it must be {' or '.join(words)}")


def _kinds(hint: Any) -> Iterator[Any]:
    """The types of a union, and the words and numbers that are legal by themselves."""
    if get_origin(hint) in (Union, UnionType):
        for part in get_args(hint):
            yield from _kinds(part)
    elif get_origin(hint) is Literal:
        yield from get_args(hint)
    else:
        yield get_origin(hint) or hint


def _is_of(value: Any, kind: Any) -> bool:
    if not isinstance(kind, type):
        return type(value) is type(kind) and bool(value == kind)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, kind) or (kind is float and isinstance(value, int))


def check_trainer(settings: Mapping[str, Any]) -> None:
    """Raise InputError for what `check_settings` refuses, or Lightning: a device that is not here, a wrong name."""
    check_settings(settings)
    _check_processes(settings)
    news = [
        logging.getLogger(f"{package}.utilities.rank_zero") for package in ("pytorch_lightning", "lightning_fabric")
    ]
    levels = [each.level for each in news]
    try:
        for each in news:
            each.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            precision = settings.get("precision", SINGLE)
            _trainer({**settings, "precision": SINGLE if precision == AUTO else precision, "logger": False})
    finally:
        for each, level in zip(news, levels, strict=True):
            each.setLevel(level)


def _check_processes(settings: Mapping[str, Any]) -> None:
    """Raise InputError for many more processes on a CPU than it has cores: each loads the model."""
    accelerator, devices = settings.get("accelerator", AUTO), str(settings.get("devices", 1))
    no_other = accelerator == AUTO and not torch.cuda.is_available() and not torch.backends.mps.is_available()
    most = max(os.cpu_count() or 1, FEW_PROCESSES)
    if (accelerator == "cpu" or no_other) and devices.isdecimal() and int(devices) > most:
        raise InputError(f"trainer.devices={devices}: on a CPU each is a process; at most {most} here")


def make_trainer(
    settings: Mapping[str, Any],
    length: Mapping[str, Any],
    folder: Path,
    logger: Sequence[Logger] | bool,
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """A Trainer with the user's ``settings`` (any argument of its own) and its ``length`` from `limits`.

    ``precision`` may also be auto, see `chosen_precision`.

    Raises:
        InputError: an argument that Trainer does not have, that kravl sets through another setting, or a wrong value.
    """
    _quiet()
    check_settings(settings)
    bar = [RichProgressBar(leave=True)] if settings.get("enable_progress_bar", True) else []
    # it helps to find bugs, changes no result, and costs 4 % of a small step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    given = {**length, "default_root_dir": folder, "logger": logger, "callbacks": [*callbacks, *bar]}
    return _trainer({**settings, **given, "precision": chosen_precision(settings)})


def _trainer(settings: Mapping[str, Any]) -> Trainer:
    """Lightning's, its refusals as InputError."""
    strategy = {"strategy": ShardedStrategy()} if settings.get("strategy") == FSDP else {}
    # Lightning's own checkpoints are off: kravl's are a callback
    fixed = {**strategy, "plugins": [SafeCheckpointIO()], "enable_checkpointing": False}
    try:
        return Trainer(**{**settings, **fixed})
    except (MisconfigurationException, ValueError, TypeError, KeyError, ImportError) as error:
        raise InputError(f"trainer: {first_line(error)}") from error


def _quiet() -> None:
    """Keep Lightning's advertisement and the warnings in NOISE out of every run's output."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return "litlogger" not in record.getMessage()
