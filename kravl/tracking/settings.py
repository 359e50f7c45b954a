"""Which of a run's settings decide its results: compared, hashed, and listed where two runs differ.

Settings are those of a config as written, with interpolations unresolved.
"""

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kravl.runtime.errors import InputError, require_name
from kravl.runtime.yaml_files import read_yaml
from kravl.tracking.former_presets import as_formerly_written

Settings = Mapping[str, Any]
# where and whether a run happens, not what it computes
WHERE = ("runs", "study", "objective", "overwrite", "resume", "force", "tracking", "track_sites", "data_root",
         "cache_root", "feature_cache_gb")  # fmt: skip
# how it is computed: on what, how fast, how often saved; none changes a number beyond a device's rounding
HOW = (
    "check_contents",
    "checkpointing",
    "checkpoint_every",
    "loading.eval_batch_size",
    "loading.max_megapixels",
    "loading.num_workers",
    "trainer.accelerator",
    "trainer.barebones",
    "trainer.benchmark",
    "trainer.detect_anomaly",
    "trainer.deterministic",
    "trainer.enable_autolog_hparams",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.inference_mode",
    "trainer.log_every_n_steps",
    "trainer.model_registry",
    "trainer.profiler",
    "trainer.strategy",
)

# settings added since 0.1.0, at the value that says what was done before: a run of then is the run of the same command
ADDED: dict[str, Any] = {
    "data.descriptions": None,
    "data.long_prompts": "cut",
    "evaluation.root": None,
    "head": {},
    "tune": "none",
    "train_statistics": False,
    "context_tokens": 0,
    "context_init": None,
    "context_per_class": False,
    "optim.label_smoothing": 0.0,
    "optim.class_weights": None,
    "optim.l2_sp": 0.0,
    "init": None,
    "stages": [],
}
# what the runs of one cell may differ in; points of WiSE-FT between its ends change no other number
PER_RUN = ("seed", "split_seed", "name", "alphas")
CELL = "cell"  # what a tracker calls `cell_of` among the settings
ADAPTER = "adapter.safetensors"
DIGEST = re.compile(r"sha256 [0-9a-f]{16}")


def with_init_digest(settings: Settings) -> dict[str, Any]:
    """The ``settings`` with the digest of what ``init`` starts from in place of its path, if it is used.

    Raises:
        InputError: there is no adapter.
    """
    given = settings.get("init")
    if given is None or is_digest(str(given)):
        return dict(settings)
    return {**settings, "init": adapter_digest(str(given))}


def is_digest(init: str) -> bool:
    """Whether ``init`` is what `with_init_digest` puts in place of a path."""
    return DIGEST.fullmatch(init) is not None


def adapter_digest(run: str) -> str:
    """A digest of the adapter of a run, whose folder may omit the hash at its end. Raises InputError without one."""
    path = Path(run)
    folders = [path] if path.is_dir() else sorted(path.parent.glob(f"{glob.escape(path.name)}-*"))
    if len(folders) != 1 or not (file := folders[0] / ADAPTER).is_file():
        raise InputError(f"init={run}: no adapter in the folder of one finished run")
    with file.open("rb") as content:
        return f"sha256 {hashlib.file_digest(content, 'sha256').hexdigest()[:16]}"


def recorded_settings(settings: Settings) -> dict[str, Any]:
    """The ``settings`` that go into a record: nothing about this machine or its folders."""
    return {key: without_home(value) for key, value in settings.items() if key not in WHERE}


def deciding_settings(settings: Settings) -> dict[str, Any]:
    """The settings that numbers depend on: commands that agree in them are one run, whatever computes it.

    ``trainer.devices`` and ``trainer.num_nodes`` become the number of processes that share a step, as they multiply its
    batch; a class of kravl becomes its name without the module, which may change between releases.
    """
    current = as_formerly_written(recorded_settings(with_init_digest(settings)))
    deciding = {key: _without_modules(value) for key, value in current.items()}
    for name in (*HOW, *ADDED):
        section, _, key = name.rpartition(".")
        parent = deciding.get(section) if section else deciding
        if isinstance(parent, dict) and (name not in ADDED or parent.get(key) == ADDED[name]):
            parent.pop(key, None)
    if isinstance(trainer := deciding.get("trainer"), dict) and {"devices", "num_nodes"} & trainer.keys():
        devices, nodes = _count(trainer.pop("devices", 1)), _count(trainer.pop("num_nodes", 1))
        trainer["devices"] = devices * nodes if isinstance(devices, int) and isinstance(nodes, int) else devices
    return deciding


def compared_settings(settings: Settings) -> dict[str, Any]:
    """`deciding_settings` without a multiple of shots that ``optim.steps`` takes the place of: it decides nothing."""
    deciding = deciding_settings(settings)
    if (
        isinstance(optim := deciding.get("optim"), dict)
        and optim.get("steps") is not None
        and "steps_per_shot" in optim
    ):
        optim["steps_per_shot"] = None  # hashes of other runs stay as they are
    return deciding


def _without_modules(tree: Any) -> Any:
    """``tree`` with ``kravl.Class`` in place of ``kravl.package.module.Class`` in each ``_target_``."""
    if isinstance(tree, list):
        return [_without_modules(value) for value in tree]
    if not isinstance(tree, Mapping):
        return tree
    plain = {key: _without_modules(value) for key, value in tree.items()}
    if str(target := plain.get("_target_")).startswith("kravl."):
        plain["_target_"] = f"kravl.{str(target).rpartition('.')[2]}"
    return plain


def _count(devices: Any) -> Any:
    """How many devices Lightning takes: a number, a list of indices, or either as text; others unchanged."""
    if isinstance(devices, list | tuple):
        return len(devices)
    if isinstance(devices, str) and "," in devices:
        return len([number for number in devices.split(",") if number.strip()])
    return int(devices) if isinstance(devices, str) and devices.strip().isdecimal() else devices


def without_home(tree: Any) -> Any:
    """``tree`` with ``${oc.env:HOME}`` in place of the user's home folder, whose path holds a name."""
    home = os.environ.get("HOME", "").rstrip("/")
    if isinstance(tree, Mapping):
        return {key: without_home(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [without_home(value) for value in tree]
    if not home or not isinstance(tree, str):
        return tree
    return re.sub(rf"{re.escape(home)}(?=/|$)", "${oc.env:HOME}", tree)


def settings_sha256(settings: Settings) -> str:
    """Hex digest of `deciding_settings`."""
    return _sha256(deciding_settings(settings))


def _sha256(deciding: Settings) -> str:
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def cell_of(label: str, settings: Settings) -> str:
    """``<label>-<hash of what decides the results, but not PER_RUN>``: runs of one cell are one setting's seeds."""
    deciding = compared_settings(settings)
    return f"{label}-{_sha256({key: value for key, value in deciding.items() if key not in PER_RUN})[:8]}"


def place_of(name: str, seed: int, settings: Settings) -> Path:
    """``<name>/seed<seed>-<hash of what decides the results>``: a run's folder below the folder of all runs.

    Raises:
        InputError: ``name`` is not a plain folder name.
    """
    require_name("name", name)
    return Path(name) / f"seed{seed}-{settings_sha256(settings)[:8]}"


def places_of(name: str, seeds: Iterable[int], settings: Settings) -> Iterator[tuple[int, Path]]:
    """Each of ``seeds`` with its `place_of`, for a grid of thousands of them. Raises InputError as it does."""
    require_name("name", name)
    deciding = deciding_settings(settings)
    for seed in seeds:
        yield seed, Path(name) / f"seed{seed}-{_sha256({**deciding, 'seed': seed})[:8]}"


def settings_in(folder: Path) -> dict[str, Any]:
    """The settings that the run in ``folder`` was started with.

    Raises:
        InputError: config.yaml is missing or not a mapping.
    """
    return read_yaml(folder / "config.yaml")


def settings_diff(saved: Settings, given: Settings) -> list[str]:
    """``key: old -> new`` for each differing setting that decides the results."""
    old, new = dict(dotted(deciding_settings(saved))), dict(dotted(deciding_settings(given)))
    keys = [key for key in old | new if old.get(key, ...) != new.get(key, ...)]
    return [f"{key}: {old.get(key, 'nothing')} -> {new.get(key, 'nothing')}" for key in keys]


def dotted(node: Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings under dotted keys; an empty mapping is a leaf."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
