"""A part of PEFT's own tests, for KRAdapter: BERT and RoBERTa for tokens. All of them: make peft-tests."""

import importlib.metadata
from pathlib import Path

import pytest

from tests.peft.upstream import archive
from tests.peft.upstream.__main__ import run
from tests.peft.upstream.table import counted

pytestmark = pytest.mark.long

FETCHED = Path(__file__).parents[2] / f".venv/peft-tests/peft-{importlib.metadata.version('peft')}.tar.gz"


@pytest.mark.skipif(not FETCHED.exists(), reason=f"{FETCHED.name} is not in .venv/peft-tests, where make puts it")
def test_a_part_of_pefts_own_tests_passes(tmp_path):
    archive.prepare(tmp_path, FETCHED)

    file = "test_token_classification_qa"

    assert run(tmp_path, "kravl.peft:KRAdapterConfig", file, [])

    row = counted(tmp_path / f"results/KRAdapter/{file}.xml")
    assert row["failed"] == []
    assert row["passed"] >= 8
