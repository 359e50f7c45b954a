"""Stands in for W&B's server on this machine: what kravl asks through W&B's own client is answered."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb_records import FAKE_KEY, isolate

PAGE = 2  # runs that are sent at once, however many are asked for


class WandbServer(ThreadingHTTPServer):
    """``asked`` holds the GraphQL requests; ``projects`` the runs of each, which `add` puts there."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.projects: dict[str, list[dict[str, Any]]] = {}
        self.refuses = False  # what it is asked to save
        self.breaks = False  # after the first page of runs
        self.entity: str | None = "team"  # of the key

    def add(self, project: str, name: str, logged: dict[str, Any], state: str = "finished") -> None:
        """A run of ``ENTITY/PROJECT`` with the ``summary`` and ``config`` that it ``logged``."""
        config = {key: {"value": value, "desc": None} for key, value in logged["config"].items()}
        node = {"id": name, "name": name, "displayName": name, "state": state, "projectId": "1", "systemMetrics": "{}"}
        node |= {"config": json.dumps(config), "summaryMetrics": json.dumps(logged["summary"]), "user": {"name": "u"}}
        self.projects.setdefault(project, []).append(node)

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "upsertView" in query:
            if self.refuses:
                return {"errors": [{"message": "permission denied"}]}
            view = {"id": "VmlldzoxMjM=", "name": variables["name"]}
            return {"data": {"upsertView": {"view": view, "inserted": True}}}
        if "query Runs(" in query:
            return {"data": {"project": self._page(variables, whole="summaryMetrics" in query)}}
        viewer = {"id": "x", "entity": self.entity, "username": "u", "email": "", "flags": "{}"}
        return {"data": {"viewer": {**viewer, "teams": {"edges": []}}}}

    def _page(self, asked: dict[str, Any], whole: bool) -> dict[str, Any] | None:
        runs = self.projects.get(f"{asked['entity']}/{asked['project']}")
        if runs is None:
            return None
        start = int(asked["cursor"] or 0)
        end = start + min(PAGE, asked["perPage"])
        left_out = () if whole else ("config", "summaryMetrics", "systemMetrics")
        nodes = [{key: value for key, value in run.items() if key not in left_out} for run in runs[start:end]]
        edges = [{"node": node, "cursor": str(i)} for i, node in enumerate(nodes, start + 1)]
        page = {"endCursor": str(end), "hasNextPage": end < len(runs)}
        return {"internalId": "1", "runCount": len(runs), "readOnly": True, "runs": {"edges": edges, "pageInfo": page}}


class Handler(BaseHTTPRequestHandler):
    server: WandbServer

    def do_GET(self) -> None:
        self._send({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path != "/graphql":  # telemetry
            return self._send({})
        asked = json.loads(body)
        self.server.asked.append(asked)
        variables = asked.get("variables") or {}
        if self.server.breaks and variables.get("cursor"):
            return self._send({}, 500)
        return self._send(self.server.answer(asked["query"], variables))

    def _send(self, content: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Not into the output of the tests."""


@contextmanager
def serve(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """W&B's client asks this server, with a key that nobody has; what the client writes is in ``folder``."""
    isolate(folder, patch)
    with WandbServer() as made:
        patch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{made.server_port}")
        patch.setenv("WANDB_API_KEY", FAKE_KEY)
        patch.setenv("WANDB_DIR", str(folder))
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield made
        wandb.teardown()
        made.shutdown()
