"""Pushing a merge to the hub, by a stand-in that speaks its protocol: what arrives, and every way to be refused."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from omegaconf import OmegaConf

import pma
from pma.merge.__main__ import MergeJob, main
from pma.snapshot import verify


@dataclass
class Hub:
    """What the stand-in holds and what it refuses.

    Attributes:
        files: bytes by name, by branch.
        refuse: status of the answer to a commit, where it is refused.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: int = 0
    refuse: int | None = None
    role: str = "write"

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, Any]:
        parts = path.strip("/").split("/")
        if parts == ["api", "whoami-v2"]:
            if token != "Bearer hf_good":
                return 401, {"error": "Invalid credentials in Authorization header"}
            access = {"auth": {"accessToken": {"role": self.role}}}
            return 200, {"name": "me", "orgs": [{"name": "lab"}], **access}
        if parts == ["api", "repos", "create"]:
            self.files.setdefault("main", {})
            return 200, {"url": "https://huggingface.co/lab/merged", "name": "lab/merged", "id": "lab/merged"}
        if parts == ["api", "validate-yaml"]:
            return 200, {"warnings": [], "errors": []}
        action, branch = parts[4] if len(parts) > 4 else "info", parts[5] if len(parts) > 5 else "main"
        if action == "branch":
            if branch in self.files:
                return 409, {"error": "exists"}
            self.files[branch] = dict(self.files["main"])
            return 200, {}
        if action == "preupload":
            asked = json.loads(body)["files"]
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]
            return 200, {"files": files}
        if action == "commit":
            if self.refuse is not None:
                return self.refuse, {"error": "Storage quota of lab is used up"}
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[branch][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del self.files[branch][line["value"]["path"]]
            self.commits += 1
            return 200, {"commitUrl": f"https://huggingface.co/lab/merged/commit/{'0' * 40}", "commitOid": "0" * 40}
        assert method == "GET", path
        if action == "tree":
            return 200, [{"type": "file", "path": n, "size": len(b), "oid": "0"} for n, b in self.files[branch].items()]
        siblings = [{"rfilename": name} for name in self.files[branch]]
        return 200, {"id": "lab/merged", "sha": "0" * 40, "siblings": siblings}


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    """A hub that this process's huggingface_hub talks to, with a good token."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            status, answer = state.answer(self.command, path, body, self.headers.get("Authorization", ""))
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    monkeypatch.setenv("NO_PROXY", "*")
    yield state
    server.shutdown()


@pytest.fixture
def folders(tmp_path, model_folder):
    """Two checkpoints."""
    return [model_folder(tmp_path / f"step-{i}", {"w": torch.full((2,), float(i))}) for i in (1, 2)]


def on_disk(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_merge_is_pushed_whole_in_one_commit(folders, tmp_path, hub):
    hub.files["main"] = {"model-00001-of-00002.safetensors": b"old", "notes.md": b"kept"}
    out = pma.merge(folders, tmp_path / "out", push_to_hub="lab/merged")
    assert hub.files == {"main": on_disk(out) | {"notes.md": b"kept"}} and hub.commits == 1
    assert "README.md" in hub.files["main"]


def test_the_command_pushes_to_a_branch_and_says_where(folders, tmp_path, hub, capsys):
    sources = [str(folder) for folder in folders]
    job = {"sources": sources, "method": "sma", "push_to_hub": "lab/merged", "revision": "step-2"}
    for name in ("one", "two"):  # the second finds the branch there
        main(OmegaConf.structured(MergeJob(output=str(tmp_path / name), **job)))
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith("pushed to http://127.0.0.1:") and last.endswith("/lab/merged/tree/step-2")
    assert hub.files == {"main": {}, "step-2": on_disk(tmp_path / "one")}


@pytest.mark.parametrize(
    "changes,environment,message",
    [
        ({"push_to_hub": "merged"}, {}, "push_to_hub=merged: give it as NAME/REPOSITORY"),
        ({"push_to_hub": "lab/a b"}, {}, "push_to_hub=lab/a b: "),
        ({"push_to_hub": "other/merged"}, {}, "your token is of me, lab; push to one of these"),
        ({}, {"HF_TOKEN": "hf_bad"}, "the hub does not answer to your token .*[Ii]nvalid"),
        ({"revision": " "}, {}, "revision: give the name of a branch"),
        ({"push_to_hub": None, "revision": "v1"}, {}, "revision=v1: goes with push_to_hub"),
    ],
)
def test_a_push_that_cannot_succeed_is_refused_before_any_work(
    folders, tmp_path, hub, monkeypatch, nothing_left, changes, environment, message
):
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ValueError, match=message) as refused:
        pma.merge(folders, tmp_path / "out", **({"push_to_hub": "lab/merged"} | changes))
    assert "\n" not in str(refused.value) and nothing_left(tmp_path) and not hub.files


def test_a_token_must_be_there_and_may_write(folders, tmp_path, hub, monkeypatch, nothing_left):
    hub.role = "read"
    with pytest.raises(ValueError, match="your token may only read"):
        pma.merge(folders, tmp_path / "out", push_to_hub="lab/merged")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ValueError, match="no token of the hub is there; log in with hf auth login"):
        pma.merge(folders, tmp_path / "out", push_to_hub="lab/merged")
    monkeypatch.undo()
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(ValueError, match="the hub does not answer"):
        pma.merge(folders, tmp_path / "out", push_to_hub="lab/merged")
    assert nothing_left(tmp_path)


def test_several_merges_are_not_pushed_to_one_place(folders, tmp_path, hub, nothing_left):
    merges = [{"method": "sma", "output": str(tmp_path / "out")}]
    job = OmegaConf.merge(
        OmegaConf.structured(MergeJob), {"sources": [*map(str, folders)], "merges": merges, "push_to_hub": "lab/merged"}
    )
    with pytest.raises(ValueError, match="push_to_hub=lab/merged: goes with one merge"):
        main(job)
    assert nothing_left(tmp_path)


def test_a_push_that_the_hub_refuses_leaves_the_merge_and_says_how_to_repeat(folders, tmp_path, hub):
    hub.refuse = 403
    with pytest.raises(ValueError) as refused:
        pma.merge(folders, tmp_path / "out", push_to_hub="lab/merged", revision="v1")
    message = str(refused.value)
    assert "the hub refused it (403 Forbidden: Storage quota of lab is used up); the merge is whole" in message
    assert "\n" not in message and "hf_good" not in message
    assert message.endswith(f"push it again with: hf upload lab/merged {tmp_path / 'out'} . --revision v1")
    assert verify(tmp_path / "out") and hub.files == {"main": {}, "v1": {}} and hub.commits == 0
