"""The faults of a run in short: each row of the campaign a few times, the real training in a process of its own."""

from pathlib import Path

import pytest
from faults.campaign import rows

pytestmark = pytest.mark.long

ELSEWHERE = "row_10_sweep"  # a minute of processes that start; tests/study stops and mends a smaller one
OURS = {name: row for name, row in rows().items() if name.startswith("row_") and name != ELSEWHERE}


@pytest.mark.parametrize("name", OURS)
def test_a_row_of_the_campaign_reaches_its_gate(name, tmp_path: Path):
    outcome = OURS[name].run(OURS[name].quick_count, tmp_path)

    assert outcome.count >= OURS[name].quick_count
    assert not outcome.failures
