"""Whether a tracker's server answers in time."""

import http.client
import os
import threading
import urllib.error
import urllib.request
from urllib.parse import urlsplit, urlunsplit

PROBE_SECONDS = 2.0
TRACKIO_ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
MLFLOW_URI = "MLFLOW_TRACKING_URI"


def answers(url: str, question: bytes | None = None) -> bool:
    """Whether ``url`` answers in time, with a status below 500; in a thread, as name resolution has no timeout.

    Args:
        question: what is sent; None asks without.
    """
    found: list[bool] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, question, PROBE_SECONDS):
                found.append(True)
        except urllib.error.HTTPError as error:
            found.append(error.code < http.client.INTERNAL_SERVER_ERROR)
            error.close()
        except (OSError, http.client.HTTPException, ValueError):
            found.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return found == [True]


def mlflow_obstacle() -> str | None:
    """Why $MLFLOW_TRACKING_URI cannot be used, or None; a database or a folder shows when it is opened."""
    uri = without_login(os.environ.get(MLFLOW_URI, ""))
    return f"{uri} does not answer" if uri.startswith("http") and not answers(f"{uri.rstrip('/')}/health") else None


def without_login(uri: str) -> str:
    """``uri`` without the name and password that it may have before an @, which are not to be printed or kept."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri
