"""Going on with other settings is refused, and each of them is named; by force it goes on."""

import signal
from pathlib import Path

from faults.campaign import Outcome, Row
from faults.triggers import AtCall, Send
from faults.victims import configured, differing_bits, run, unbroken

from kravl.run.train import train
from kravl.runtime.errors import InputError

CHANGES = {
    "optim.lr": "0.5",
    "seed": "7",
    "split_seed": "3",
    "shots": "4",
    "adapter.scale": "3.0",
    "loading.batch_size": "4",
    "optim.epochs": "5",
    "data.templates": "openai80",
    "loading.augmentation": "none",
    "alphas": "3",
}


def changed(count: int, folder: Path) -> Outcome:
    """``count`` changed settings, one at a time; then the same settings, and another end of the run by force."""
    failures = []
    places = {}
    for name in ("broken", "forced"):
        killed = AtCall("kravl.training.checkpoint:_write", 6, Send((signal.SIGKILL,)))
        run(configured(folder / name), folder / f"{name}.log", killed)
        (places[name],) = (folder / name).glob("*/seed*")
    for key, value in list(CHANGES.items())[:count]:
        try:
            train(configured(folder / "broken", f"{key}={value}", f"resume={places['broken']}"))
            failures.append(f"{key}: not refused")
        except InputError as error:
            if f"{key}: " not in str(error) or f"-> {value}" not in str(error):
                failures.append(f"{key}: not named in {error}")
    resumed = configured(folder / "elsewhere", f"resume={places['broken']}")
    if run(resumed, folder / "broken.log") != 0 or differing_bits(folder / "broken", unbroken()):
        failures.append("the same settings did not go on to the same end")
    forced = configured(folder / "forced", "optim.lr=0.5", f"resume={places['forced']}", "force=true")
    if run(forced, folder / "forced.log") != 0 or not differing_bits(folder / "forced", unbroken()):
        failures.append("force=true did not go on with the new settings")
    return Outcome(min(count, len(CHANGES)), f"{count} changes, {count - len(failures)} refused and named", failures)


ROW = Row(9, "resume with changed settings", "10 changed, 10 named; equal and forced ones go on", 10, 10, changed)
