"""Checkpoints of other programs: what is read of torch's formats, distributed checkpoints and the hub, and refused."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed import checkpoint

import pma
from pma.json_files import MANIFEST
from pma.merge import average, sma
from pma.merge.content import source_hash
from pma.merge.formats import open_source

TENSORS = {
    "model.embed_tokens.weight": torch.randn(37, 16, generator=torch.Generator().manual_seed(0)),
    "model.layers.0.mlp.weight": torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1)).bfloat16(),
    "model.layers.0.norm.weight": torch.ones(16),
    "model.scale": torch.tensor(2.5),
    "model.ids": torch.arange(6),
}


def hf_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    return folder


def test_every_format_gives_the_same_content(tmp_path):
    single = hf_folder(tmp_path / "single")
    save_file(TENSORS, single / "model.safetensors", metadata={"format": "pt"})
    names = sorted(TENSORS)
    parts = {"1": names[:2], "2": names[2:]}
    sharded, torch_sharded = hf_folder(tmp_path / "sharded"), hf_folder(tmp_path / "torch-sharded")
    for part, chosen in parts.items():
        save_file({n: TENSORS[n] for n in chosen}, sharded / f"model-{part}.safetensors")
        torch.save({n: TENSORS[n] for n in chosen}, torch_sharded / f"pytorch_model-{part}.bin")
    for folder, kind, stem in ((sharded, "safetensors", "model"), (torch_sharded, "bin", "pytorch_model")):
        weight_map = {n: f"{stem}-{part}.{kind}" for part, chosen in parts.items() for n in chosen}
        (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    plain = hf_folder(tmp_path / "plain")
    torch.save(TENSORS, plain / "pytorch_model.bin")
    checkpoint.save(dict(TENSORS), checkpoint_id=hf_folder(tmp_path / "dcp"), no_dist=True)

    folders = [single, sharded, torch_sharded, plain, tmp_path / "dcp"]
    assert [open_source(f).format for f in folders] == ["safetensors", "safetensors", "torch", "torch", "dcp"]
    assert len({source_hash(open_source(folder)) for folder in folders}) == 1
    merged = average(folders, sma(5))
    assert all(torch.allclose(merged[n].float(), t.float(), rtol=1e-6) for n, t in TENSORS.items())


def test_other_names_in_another_format_are_refused_and_the_formats_named(tmp_path):
    save_file(TENSORS, hf_folder(tmp_path / "step-1") / "model.safetensors")
    checkpoint.save({"model": TENSORS}, checkpoint_id=tmp_path / "step-2", no_dist=True)
    with pytest.raises(ValueError, match=r"is missing, .* \(one is dcp, the other safetensors\); merge one"):
        pma.merge([tmp_path / "step-1", tmp_path / "step-2"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_merging_to_and_from_a_distributed_checkpoint_keeps_the_content(tmp_path):
    single = hf_folder(tmp_path / "single")
    save_file(TENSORS, single / "model.safetensors", metadata={"format": "pt"})
    there = pma.merge([single], tmp_path / "dcp", dtype="newest", format="dcp")
    back = pma.merge([there], tmp_path / "back", dtype="newest", shard_size=1000)
    contents = {json.loads((folder / MANIFEST).read_text())["content"] for folder in (there, back)}
    assert contents == {source_hash(open_source(single))}
    assert not list(there.glob("*.safetensors")) and len(list(back.glob("model-*.safetensors"))) > 1
    loaded = {name: torch.empty_like(tensor) for name, tensor in TENSORS.items()}
    checkpoint.load(loaded, checkpoint_id=there, no_dist=True)  # torch itself reads it
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())
    again = pma.merge([single], tmp_path / "again", dtype="newest", format="dcp")
    for path in there.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()


FSDP = """
import sys, torch, torch.distributed as dist
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
dist.init_process_group("gloo")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))
expected = {k: v.clone() for k, v in model.state_dict().items()}
columns = torch.arange(24.0).reshape(4, 6)
mesh = init_device_mesh("cpu", (2,))
fully_shard(model, mesh=mesh)
optimizer = torch.optim.AdamW(model.parameters())
model(torch.ones(2, 7)).sum().backward()
state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": torch.tensor(3)}
state["model"]["columns"] = distribute_tensor(columns, mesh, [Shard(1)])
checkpoint.save(state, checkpoint_id=sys.argv[1])
if dist.get_rank() == 0:
    torch.save({**expected, "columns": columns}, sys.argv[1] + ".pt")
dist.barrier()  # a process that leaves while the other still works can abort it
dist.destroy_process_group()
"""


def test_a_checkpoint_that_fsdp_saved_on_two_processes_is_read_whole(tmp_path):
    (tmp_path / "save.py").write_text(FSDP)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    done = subprocess.run(
        [*command, tmp_path / "save.py", tmp_path / "dcp"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-8000:]
    expected = torch.load(tmp_path / "dcp.pt", weights_only=True)
    assert len(list((tmp_path / "dcp").glob("*.distcp"))) == 2
    out = pma.merge([tmp_path / "dcp"] * 2, tmp_path / "out", prefix="model.")  # sharded by rows, and one by columns
    merged = load_file(out / "model.safetensors")
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], tensor) for name, tensor in expected.items())
    with pytest.raises(ValueError, match="no tensor of .* begins so"):
        pma.merge([tmp_path / "dcp"], tmp_path / "other", prefix="nothing.")
    shard = next((tmp_path / "dcp").glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ValueError, match="missing or truncated"):
        pma.merge([tmp_path / "dcp"], tmp_path / "cut")


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_no_pickle_is_executed(tmp_path, capsys):
    folder = hf_folder(tmp_path / "bin")
    (folder / "pytorch_model.bin").write_bytes(b"")
    torch.save({"w": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="not a whole state dict"):
        pma.merge([folder], tmp_path / "out")
    folder = hf_folder(tmp_path / "dcp")
    (folder / ".metadata").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="names builtins.print"):
        pma.merge([folder], tmp_path / "out")
    assert "executed" not in capsys.readouterr().out


def test_what_is_missing_or_no_model_is_named(tmp_path):
    empty = hf_folder(tmp_path / "empty")
    with pytest.raises(ValueError, match="no checkpoint in it; looked for model.safetensors"):
        open_source(empty)
    index = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    (empty / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="model-00001-of-00001.safetensors: missing"):
        open_source(empty)
    save_file({"v": torch.ones(1)}, empty / "model-00001-of-00001.safetensors")
    with pytest.raises(ValueError, match="tensor w is not in it"):
        open_source(empty)
    scaled = hf_folder(tmp_path / "fp8")
    save_file({"w": torch.ones(2).to(torch.float8_e4m3fn)}, scaled / "model.safetensors")
    with pytest.raises(ValueError, match="F8_E4M3, whose values mean nothing"):
        open_source(scaled)


# ---- the hub, by a stand-in that speaks its protocol ----


@pytest.fixture
def hub(tmp_path) -> Iterator[tuple[str, dict[str, dict[str, bytes]]]]:
    """A server with the revisions of one repository; its address and the files by revision."""
    revisions: dict[str, dict[str, bytes]] = {}

    def sha_of(revision: str) -> str:
        return revision.encode().hex().ljust(40, "0")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts[:4] == ["api", "models", "some", "model"]:
                asked = parts[5] if len(parts) > 5 else "main"
                revision = next((r for r in revisions if sha_of(r) == asked), asked)
                if revision not in revisions:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "RevisionNotFound")
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
                if parts[4:5] == ["tree"]:
                    files = [
                        {"type": "file", "path": f, "size": len(b), "oid": "0"} for f, b in revisions[revision].items()
                    ]
                    return self._send(json.dumps(files).encode())
                siblings = [{"rfilename": name} for name in revisions[revision]]
                info = {"id": "some/model", "sha": sha_of(revision), "siblings": siblings}
                return self._send(json.dumps(info).encode())
            _, _, _, sha, file = parts  # /some/model/resolve/SHA/FILE
            revision = next(r for r in revisions if sha_of(r) == sha)
            self._send(revisions[revision][file], sha)

        do_HEAD = do_GET

        def _send(self, body: bytes, commit: str = "") -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            if commit:
                self.send_header("X-Repo-Commit", commit)
                self.send_header("ETag", f'"{hash(body) & (2**64 - 1):x}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", revisions
    server.shutdown()


def test_revisions_of_the_hub_are_fetched_and_merged(tmp_path, hub):
    address, revisions = hub
    for i in range(3):
        folder = hf_folder(tmp_path / str(i))
        save_file({"w": torch.full((4,), float(i))}, folder / "model.safetensors", metadata={"format": "pt"})
        revisions[f"step{i}000"] = {path.name: path.read_bytes() for path in folder.iterdir()}
        revisions[f"step{i}000"]["pytorch_model.bin"] = b"not wanted"
    script = (
        "import pma, sys\n"
        "pma.merge([f'some/model@step{i}000' for i in range(3)], sys.argv[1])\n"
        "try:\n    pma.merge(['some/model@step9'], sys.argv[1] + '2')\n"
        "except ValueError as error:\n    print(error)\n"
    )
    env = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(pma.__file__).parents[1])}
    env |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "*", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "out"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert load_file(tmp_path / "out" / "model.safetensors")["w"].tolist() == [1.0] * 4
    assert "some/model@step9: the hub did not give it" in done.stdout
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert [source["folder"] for source in manifest["sources"]] == [f"some/model@step{i}000" for i in range(3)]
