"""Whether Weights & Biases can be online here: a key, and a host that answers. Nothing is asked and nothing hangs."""

import http.client
import netrc
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import wandb

KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
PROBE_SECONDS = 2.0
QUESTION = b'{"query": "{ __typename }"}'


def obstacle() -> str | None:
    """Why W&B cannot be online, or None."""
    if os.environ.get("WANDB_MODE", "online") != "online":
        return f"WANDB_MODE={os.environ['WANDB_MODE']}"
    host = wandb.setup().settings.base_url
    # a key saved for the API's own name serves the default host, whatever that is called in this release
    machines = [urlsplit(host).netloc, *(["api.wandb.ai"] if host == wandb.Settings().base_url else [])]
    if not (any(map(os.environ.get, KEYS)) or any(map(_key_in_netrc, machines))):
        return f"no API key for {host}"
    return None if _answers(host) else f"{host} does not answer"


def _key_in_netrc(machine: str) -> bool:
    for file in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if file and netrc.netrc(Path(file).expanduser()).authenticators(machine):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _answers(url: str) -> bool:
    """Whether W&B's API answers below status 500 in time; in a thread, as name resolution knows no timeout."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            # of a server whose pages are there and whose API fails, wandb.init would wait for its whole timeout
            with urllib.request.urlopen(f"{url}/graphql", QUESTION, PROBE_SECONDS):
                answers.append(True)
        except urllib.error.HTTPError as error:
            answers.append(error.code < http.client.INTERNAL_SERVER_ERROR)
            error.close()
        except (OSError, http.client.HTTPException, ValueError):
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answers == [True]
