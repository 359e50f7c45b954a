"""A state from somebody else whose manifest is right and whose content is odd: one line, and nothing is trained."""

import hashlib
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.campaign import Outcome, Row
from faults.triggers import AtCall, Send
from faults.victims import configured, run

Tree = Any
Edit = Callable[[Tree], Tree]


def odd(count: int, folder: Path) -> Outcome:
    """``count`` edits of the newest state of a killed run, each followed by a start."""
    failures = []
    killed = AtCall("kravl.training.checkpoint:_write", 6, Send((signal.SIGKILL,)))
    run(configured(folder / "killed"), folder / "killed.log", killed)
    shutil.copytree(folder / "killed", folder / "kept")
    for name, edit in list(EDITS.items())[:count]:
        shutil.rmtree(folder / "killed")
        shutil.copytree(folder / "kept", folder / "killed")
        newest = max(folder.glob("killed/*/*/checkpoints/step=*.ckpt"), key=lambda p: int(p.stem[5:]))
        _rewrite(newest, edit)
        out = folder / f"{name}.log"
        code = run(configured(folder / "killed"), out)
        text = out.read_text(errors="replace")
        # a process that is not the command shows its end in an exception: the last line is what the command would print
        told = (
            "is no state that training writes" in text or "the checkpoint" in text or "was not written by kravl" in text
        )
        if code == 0 or not told or any(folder.glob("killed/*/*/metrics.json")):
            failures.append(f"{name}: exit code {code}, {text.strip().splitlines()[-1:]}")
    return Outcome(min(count, len(EDITS)), f"{count} odd states, {len(failures)} taken or untold", failures)


def _rewrite(state: Path, edit: Edit) -> None:
    tree = edit(json.loads((state / "state.json").read_text()))
    (state / "state.json").write_text(json.dumps(tree))
    manifest = json.loads((state / "manifest.json").read_text())
    content = (state / "state.json").read_bytes()
    manifest["state.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (state / "manifest.json").write_text(json.dumps(manifest))


def _set(*path: Any, to: Any) -> Edit:
    """An edit of what the keys ``path`` lead to."""

    def edit(tree: Tree) -> Tree:
        node = tree
        for key in path[:-1]:
            node = next(value for name, value in node["pairs"] if name == key)
        pairs = [pair for pair in node["pairs"] if pair[0] != path[-1]]
        node["pairs"] = pairs if to is ... else [*pairs, [path[-1], to]]
        return tree

    return edit


LOOPS = ("loops", "fit_loop")
EDITS: dict[str, Edit] = {
    "an epoch that is far": _set("epoch", to=10**12),
    "loops gone": _set("loops", to=...),
    "a state of the optimiser that is a number": _set("optimizer_states", to=[1]),
    "empty": lambda tree: {"pairs": []},
    "a list": lambda tree: [1, 2],
    "a version that is text": _set("pytorch-lightning_version", to="x"),
    "no version": _set("pytorch-lightning_version", to=...),
    "a negative step": _set("global_step", to=-5),
    "no tensors": _set("state_dict", to={"pairs": []}),
    "no optimiser": _set("optimizer_states", to=[]),
    "no schedule": _set("lr_schedulers", to=[]),
    "an optimiser without moments": _set("optimizer_states", to=[{"pairs": [["state", {"pairs": []}]]}]),
    "batches beyond the epoch": _set(*LOOPS, "epoch_loop.batch_progress", "current", "ready", to=-3),
    "steps that are text": _set(*LOOPS, "epoch_loop.state_dict", "_batches_that_stepped", to="many"),
    "no progress": _set(*LOOPS, "epoch_progress", to=...),
    "a callback's points that are text": _set("callbacks", "LearningCurve", to={"pairs": [["points", "x"]]}),
    "a loader's place that is text": _set(*LOOPS, "state_dict", to={"pairs": [["combined_loader", ["x"]]]}),
}
GATE = "17 of 17: a line, nothing is trained"
ROW = Row(26, "a state whose manifest is right and whose content is odd", GATE, 17, 3, odd)
