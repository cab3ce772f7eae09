"""Checkpoints go to the Hub and come back, through huggingface_hub, against a server on this machine.

The server speaks as much of the Hub's protocol as an upload of small files and a download need. The transfer of large
files (LFS, Xet) is the library's own and is not tested here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch

from pipeline_lib.__main__ import main
from pipeline_lib.checkpoints.checkpoint import FILES
from pipeline_lib.checkpoints.hub import local_folder, push
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.pretrained import load
from tests.unit.scoring_world import write_random_checkpoint

REPOSITORY, COMMIT = "me/characters", "1" * 40


class Hub(ThreadingHTTPServer):
    """A Hub with one repository, whose files are kept in memory."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.created: list[dict[str, object]] = []
        self.tokens: set[str | None] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def _send(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers["Authorization"])
        path = urlparse(self.path).path
        if path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self._send(200, {"url": f"{self.server.address}/{REPOSITORY}", "name": REPOSITORY, "id": REPOSITORY})
        elif path == f"/api/models/{REPOSITORY}/preupload/main":
            asked = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            self._send(200, {"files": asked})
        elif path == f"/api/models/{REPOSITORY}/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            address = f"{self.server.address}/{REPOSITORY}/commit/{COMMIT}"
            self._send(200, {"success": True, "commitOid": COMMIT, "commitUrl": address})
        elif path == "/api/validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        else:
            self._send(404, {"error": f"no such thing: {path}"})

    def do_GET(self) -> None:
        path = urlparse(self.path).path
        resolved = f"/{REPOSITORY}/resolve/{COMMIT}/"
        if path in (f"/api/models/{REPOSITORY}", f"/api/models/{REPOSITORY}/revision/main"):
            siblings = [{"rfilename": name} for name in self.server.files]
            self._send(200, {"id": REPOSITORY, "sha": COMMIT, "siblings": siblings})
        elif path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.server.files.items()
            ]
            self._send(200, tree)
        elif path.startswith(resolved) and path.removeprefix(resolved) in self.server.files:
            content = self.server.files[path.removeprefix(resolved)]
            self._send(200, content, {"ETag": hashlib.sha1(content).hexdigest(), "X-Repo-Commit": COMMIT})
        else:
            self._send(404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Let huggingface_hub take this server for the Hub."""
    with Hub() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        constants = {
            "ENDPOINT": server.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
        }
        for name, value in constants.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.setenv("HF_TOKEN", "hf_of_me")
        yield server
        server.shutdown()


def test_a_checkpoint_that_was_pushed_is_loaded_by_its_name(
    tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_random_checkpoint(tmp_path / "c")
    (made / "notes.txt").write_text("mine alone")
    assert main(["push", str(made), "--repository", REPOSITORY]) == 0
    assert capsys.readouterr().out.strip().endswith(f"/commit/{COMMIT}")
    assert hub.files == {name: (made / name).read_bytes() for name in FILES}, "its own files and no others"
    assert hub.created[0]["visibility"] == "private"
    assert hub.tokens == {"Bearer hf_of_me"}

    found = load(REPOSITORY)(torch.ones(2, 3, 32, 32))
    torch.testing.assert_close(found, load(made)(torch.ones(2, 3, 32, 32)))
    assert list((tmp_path / "cache").glob("models--me--characters/snapshots/*/config.json"))


def test_a_repository_that_is_not_there_is_named_in_one_line(hub: Hub) -> None:
    with pytest.raises(PipelineError, match="me/nothing: no such folder, and the Hub can't give a repository") as error:
        local_folder("me/nothing")
    assert "\n" not in str(error.value)


def test_what_is_no_checkpoint_is_not_pushed(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="is no checkpoint"):
        push(tmp_path, REPOSITORY)


def test_a_hub_that_can_not_be_reached_and_a_name_that_is_none_take_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_random_checkpoint(tmp_path / "c")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and doesn't listen
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        command = ["push", str(tmp_path / "c"), "--repository"]
        assert main([*command, REPOSITORY]) == 1
        unreachable = capsys.readouterr().err
        assert main([*command, "a/b/c"]) == 1
    malformed = capsys.readouterr().err
    assert f"{REPOSITORY}: the Hub at {address} can't be reached (" in unreachable
    assert "a/b/c: is not a name of a repository, owner/name (" in malformed
    for message in (unreachable, malformed):
        assert message.count("\n") == 1 and "hf auth login" not in message


def test_a_folder_is_taken_before_a_repository_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "me" / "characters").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert local_folder("me/characters") == Path("me/characters")
