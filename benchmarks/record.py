"""What a benchmark prints and keeps: a table, and a JSON record with all that it takes to measure it again."""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

BEGUN = time.perf_counter()
VERSIONS = ("torch", "torchvision", "open_clip_torch", "timm", "pytorch-lightning", "peft", "transformers")


def add_options(parser: argparse.ArgumentParser, rounds: int, quick: str) -> None:
    """What every timed benchmark can be told; ``rounds`` is the default, ``quick`` says what a check of itself does."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16 is autocast")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--json", type=Path, help="a file for the record")
    parser.add_argument("--quick", action="store_true", help=quick)


def record(title: str, rows: Sequence[Mapping[str, Any]], **facts: Any) -> dict[str, Any]:
    """The rows of a table with all that it takes to measure them again; ``facts`` are settings, floors and the like."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine = {"processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu}
    installed = {name.lower() for item in metadata.distributions() if (name := item.metadata["Name"])}
    versions = {name: metadata.version(name) for name in VERSIONS if name.lower() in installed}
    versions["python"] = platform.python_version()
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_told(sys.argv[1:])])
    about: dict[str, Any] = {"title": title, "command": command, "commit": head.stdout.strip() or None}
    about["seconds"] = round(time.perf_counter() - BEGUN)
    return {**about, **facts, "machine": machine, "versions": versions, "rows": list(rows)}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as columns of text."""
    lines = [list(rows[0]), *([text(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def _told(arguments: Sequence[str]) -> list[str]:
    """The arguments without where the record goes, and without this machine's folders."""
    rest = list(arguments)
    if "--json" in rest:
        at = rest.index("--json")
        del rest[at : at + 2]
    return [Path(argument).name if Path(argument).is_absolute() else argument for argument in rest]


def publish(result: Mapping[str, Any], file: Path | None = None) -> None:
    """Print the rows of a `record` as a table, then the whole as one line of JSON; keep it in ``file`` too.

    Its ``parts``, where it has some, are tables of their own, by title.
    """
    for title, rows in {result["title"]: result["rows"], **result.get("parts", {})}.items():
        print(f"{title}\n{table(rows)}")
    print(json.dumps(result))
    if file is not None:
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def text(value: Any) -> str:
    """As a table shows it: numbers by three digits."""
    return f"{value:.3g}" if isinstance(value, float) else "-" if value is None else str(value)


def _processor() -> str:
    """Its name where the system tells, and the instructions that PyTorch uses on it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
