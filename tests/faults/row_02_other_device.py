"""The same kills with the temporary folder on another device, where a rename is a copy."""

import tempfile
from pathlib import Path

from faults.campaign import Outcome, Row
from faults.row_01_killed import killed_at_random

OTHER_DEVICE = Path("/dev/shm")


def killed_with_tmpdir_elsewhere(count: int, folder: Path) -> Outcome:
    """`killed_at_random` with TMPDIR in memory; nothing of the runs is in it at the end."""
    with tempfile.TemporaryDirectory(dir=OTHER_DEVICE if OTHER_DEVICE.is_dir() else None) as elsewhere:
        apart = Path(elsewhere).stat().st_dev != folder.stat().st_dev
        outcome = killed_at_random(count, folder, [("TMPDIR", elsewhere)])
        leaked = [p.name for p in Path(elsewhere).iterdir()]
    failures = [*outcome.failures, *(f"TMPDIR holds {name}" for name in leaked)]
    failures += [] if apart else ["there is no other device here"]
    return Outcome(outcome.count, f"{outcome.reached}, {len(leaked)} files leaked", failures)


ROW = Row(
    2,
    "the same with TMPDIR on another device",
    "0 corrupt, 0 leaked files after the next start",
    60,
    1,
    killed_with_tmpdir_elsewhere,
)
