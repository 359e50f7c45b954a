"""A disk that is full when a state is saved costs the run nothing that it had."""

from itertools import product
from pathlib import Path

from faults.campaign import Outcome, Row
from faults.triggers import AtCall, FillDisk
from faults.victims import configured, differing_bits, expected_state, run, unbroken

POINTS = list(product((2, 3, 6, 9, 12), (20_000, 200_000)))  # before which save, bytes that there is still room for


def full_when_saving(count: int, folder: Path) -> Outcome:
    """``count`` fill points: the run ends, the state before is whole, and with room again it goes on to the end."""
    failures = []
    for save, room in POINTS[:count]:
        place, log = folder / f"{save}-{room}", folder / f"{save}-{room}.log"
        code = run(configured(place), log, AtCall("kravl.training.checkpoint:_write", save, FillDisk(room)))
        state = expected_state(place)
        said = log.read_text()
        if code != 1 or "Traceback" in said or "bytes needed" not in said or "cannot write the checkpoint" not in said:
            failures.append(f"{save}, {room}: exit code {code}, see {log}")
        elif state is None or state.name != f"step={save - 2}.ckpt":
            failures.append(f"{save}, {room}: {state} is what is left")
        elif run(configured(place), log) != 0 or differing_bits(place, unbroken()):
            failures.append(f"{save}, {room}: did not go on to the same end")
    count = min(count, len(POINTS))
    return Outcome(count, f"{count} fill points, {len(failures)} destroyed or different", failures)


ROW = Row(
    4, "disk full while a state is saved", "0 destroyed files, path and bytes in one line", 10, 1, full_when_saving
)
