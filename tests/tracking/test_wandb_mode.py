"""W&B is online only with a key for its host and a host that answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from wandb_records import FAKE_KEY, isolate

from kravl.tracking import wandb_run


@pytest.fixture(autouse=True)
def isolated_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    isolate(tmp_path, monkeypatch)
    yield
    wandb.teardown()  # it keeps the settings of its first use


@pytest.mark.parametrize("netrc", ["", "machine elsewhere.org login user password secret", "machine"])
def test_a_netrc_without_the_host_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, netrc: str) -> None:
    (tmp_path / "netrc").write_text(netrc)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")

    assert wandb_run.obstacle() == "no API key for http://127.0.0.1:9"


def test_a_key_in_netrc_for_the_api_host_serves_the_default_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {FAKE_KEY}\n")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing listens

    assert wandb_run.obstacle() == f"{wandb.Settings().base_url} does not answer"


def test_a_key_in_netrc_is_found_and_an_unreachable_host_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1:9 login user password {FAKE_KEY}\n")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")

    assert wandb_run.obstacle() == "http://127.0.0.1:9 does not answer"
