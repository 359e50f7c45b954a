"""The command line of the rehearsal: builds the data, runs the commands, prints and keeps tables and gates."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rehearsal import measures, sets
from rehearsal.commands import ROOT, Step, steps
from rich.console import Console
from rich.progress import track

from kravl.runtime.files import write_atomic
from kravl.tracking.provenance import provenance

DESCRIPTION = (
    "Build data folders with the layout and the counts of every set that a shipped command names, of small pictures, "
    "and run the shipped commands on them with a small architecture. Run the same command again to resume."
)
STEP_HEAD = ("command", "seconds", "peak GiB of the process", "ended", "commit")


def main() -> int:
    """0 if every command ended well and every gate is reached, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.rehearsal", description=DESCRIPTION)
    parser.add_argument("--work", type=Path, default=ROOT / "runs/rehearsal", help="data, runs and logs (%(default)s)")
    parser.add_argument("--full", action="store_true", help="of each study every method on every set: several hours")
    parser.add_argument("--out", type=Path, default=ROOT / "experiments/rehearsal", help="tables (%(default)s)")
    options = parser.parse_args()
    console = Console(stderr=True, highlight=False)
    work = options.work.resolve()
    begin = time.perf_counter()
    sets.build(work / "data", console.print)
    console.print(f"data: {time.perf_counter() - begin:.0f} s")
    done = _run(work, options.full, console)
    rows = [row for runs in sorted((work / "runs").iterdir()) for row in measures.measured(runs)]
    found = list(measures.growth([row for row in rows if row.command == "growth"], _start()))
    failures = [f"{name} ended with {step['ended']}" for name, step in done.items() if step["ended"] != "well"]
    failures += [line for runs in sorted((work / "runs").iterdir()) for line in measures.unfit(runs)]
    failures += [*measures.too_large(rows), *measures.too_steep(found)]
    text = _tables(rows, found, done, failures)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomic(options.out / "table.md", text)
    return int(bool(failures))


def _run(work: Path, full: bool, console: Console) -> dict[str, dict[str, Any]]:
    """Name -> what each command took; those that ended well before are not run again."""
    kept = work / "steps.json"
    done: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    (work / "logs").mkdir(exist_ok=True)
    for step in track(steps(work / "data", work, full), "commands", console=console):
        if done.get(step.name, {}).get("ended") != "well":
            done[step.name] = _measure(step, work / "logs" / f"{step.name.replace('/', ' ')}.txt")
            write_atomic(kept, json.dumps(done, indent=1) + "\n")
            console.print(f"{step.name}: {done[step.name]['ended']}, {done[step.name]['seconds']:.0f} s")
    return done


def _measure(step: Step, log: Path) -> dict[str, Any]:
    """Seconds, the most memory that the process held, and how it ended: a traceback is no good end."""
    begin = time.perf_counter()
    with log.open("w") as out:
        environment = {**os.environ, "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(step.command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    traceback = "Traceback" in log.read_text(errors="replace")
    ended = "well" if process.returncode == 0 and not traceback else f"exit code {process.returncode}, see {log.name}"
    commit = str(provenance()["git_commit"])[:7]
    return {"seconds": time.perf_counter() - begin, "peak": usage.ru_maxrss * 1024, "ended": ended, "commit": commit}


def _start() -> float:
    """Bytes that a process holds once it has loaded what a run needs, before it has any data or model."""
    code = "import resource, kravl.run.train; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)


def _tables(
    rows: Sequence[measures.Measured],
    found: Sequence[measures.Growth],
    done: Mapping[str, Mapping[str, Any]],
    failures: Sequence[str],
) -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB"
    made = f"`make rehearsal` on {machine}; Python {platform.python_version()}. Each command at the commit beside it."
    gates = "Every gate is reached." if not failures else "Not reached:\n\n" + "".join(f"- {f}\n" for f in failures)
    commands = [
        [name, f"{step['seconds']:.0f}", f"{step['peak'] / 2**30:.2f}", str(step["ended"]), step["commit"]]
        for name, step in done.items()
    ]
    return "\n".join(
        [
            made + "\n",
            gates + "\n",
            "## Runs\n",
            measures.markdown(measures.HEAD, (row.row() for row in rows if row.command != "growth")),
            "## Growth\n",
            measures.markdown(measures.GROWTH_HEAD, (each.row() for each in found)),
            "## Commands\n",
            measures.markdown(STEP_HEAD, commands),
        ]
    )


def _processor() -> str:
    """What the processor calls itself, and its widest vectors as torch sees them."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} ({torch.backends.cpu.get_cpu_capability()})"
