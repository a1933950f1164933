"""torchtitan's config says what ours says; its checkpoints, merged, become models that transformers loads."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file
from tokenizers import ByteLevelBPETokenizer
from torch.distributed import checkpoint
from transformers import PreTrainedTokenizerFast

import pma
from pma.config import CONF_DIR, register, validate
from pma.engine import EngineJob
from pma.layout import positions, run_window, snapshots
from pma.merge import average, sma
from pma.merge.checkpoints import complete
from pma.model.build import build, load_pretrained, load_weights
from pma.snapshot import verify
from pma.torchtitan.command import run as main
from pma.torchtitan.config import tables, write_config
from pma.torchtitan.convert import convert
from pma.train.schedule import learning_rate

register()

# As in models/qwen3/state_dict_adapter.py of torchtitan 0.3.0; written down independently of pma.torchtitan.names.
LAYER = {
    "self_attn.q_proj": "attention.qkv_linear.wq",
    "self_attn.k_proj": "attention.qkv_linear.wk",
    "self_attn.v_proj": "attention.qkv_linear.wv",
    "self_attn.o_proj": "attention.wo",
    "self_attn.q_norm": "attention.q_norm",
    "self_attn.k_norm": "attention.k_norm",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate": "moe.router.gate",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
}
WHOLE = {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "lm_head"}
EXPERTS = {"gate_proj": "w1_EFD", "up_proj": "w3_EFD", "down_proj": "w2_EDF"}


def config(*overrides: str):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("config", list(overrides))
    validate(cfg)
    return cfg


def engine_job(**values: object) -> DictConfig:
    """A job of `python -m pma.engine`."""
    return OmegaConf.merge(OmegaConf.structured(EngineJob), values)


def engine_state(folder: Path) -> dict[str, torch.Tensor]:
    """A saved model of transformers under torchtitan's names, its experts stacked."""
    state, experts = {}, {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        stem = name.removesuffix(".weight")
        if match := re.fullmatch(r"model\.layers\.(\d+)\.mlp\.experts\.(\d+)\.(\w+)", stem):
            key = f"layers.{match[1]}.moe.routed_experts.inner_experts.{EXPERTS[match[3]]}"
            experts.setdefault(key, {})[int(match[2])] = tensor
        elif match := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem):
            state[f"layers.{match[1]}.{LAYER[match[2]]}.weight"] = tensor
        else:
            state[f"{WHOLE[stem]}.weight"] = tensor
    if "lm_head.weight" not in state:  # tied: torchtitan's state dict holds both names
        state["lm_head.weight"] = state["tok_embeddings.weight"]
    return state | {key: torch.stack([by[e] for e in sorted(by)]) for key, by in experts.items()}


def save_step(folder: Path, state: dict[str, torch.Tensor]) -> None:
    """As torchtitan's checkpointer: the model's tensors at the top, the rest of the training state under its names."""
    step = int(folder.name.removeprefix("step-"))
    moments = {f"state.{name}.exp_avg": torch.ones_like(tensor) for name, tensor in state.items()}
    rest = {"optimizer": moments, "lr_scheduler": {"last_epoch": step}, "train_state": {"step": torch.tensor(step)}}
    checkpoint.save({**state, **rest}, checkpoint_id=folder, no_dist=True)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(["zero one two three"] * 20, vocab_size=300)
    PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="zero").save_pretrained(folder)
    return folder


KINDS = {"dense": ["run=dense_2b"], "moe": ["run=moe_10b_100b", "model.tie_embeddings=false"]}


@pytest.fixture(scope="module", params=KINDS)
def trained(request, tmp_path_factory):
    """Two steps of a run on torchtitan, and the same weights as transformers saves them."""
    cfg = config("scale=smoke", *KINDS[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    for step in (10, 20):
        torch.manual_seed(step)
        plain = folder / "plain" / str(step)
        model = build(cfg.model, cfg.scale.sequence_length)
        with torch.no_grad():
            for parameter in model.parameters():  # gains of norms are ones at first, whatever their name
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(plain)
        save_step(folder / "checkpoint" / f"step-{step}", engine_state(plain))
    return cfg, folder


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(48).reshape(2, 24)).logits


def test_merged_checkpoints_become_the_model_of_the_merged_weights(trained, tokenizer, tmp_path):
    cfg, folder = trained
    steps = positions(folder / "checkpoint")
    assert list(steps) == [10, 20] and all(complete(path) for path in steps.values())  # pma.watch sees them
    length = cfg.scale.sequence_length
    for dtype, format in (("float32", "safetensors"), ("float32", "dcp"), ("bfloat16", "safetensors")):
        name = f"{format}-{dtype}"
        merged = pma.merge(list(steps.values()), tmp_path / f"merged-{name}", dtype=dtype, format=format)
        model = convert(str(merged), tmp_path / name, cfg.model, length, tokenizer)
        verify(model)
        expected = build(cfg.model, length)
        averaged = average([folder / "plain" / "10", folder / "plain" / "20"], sma(2))
        load_weights(expected, {name: tensor.to(getattr(torch, dtype)) for name, tensor in averaged.items()})
        assert torch.equal(logits(load_pretrained(model)), logits(expected))


def test_steps_become_snapshots_that_merge_and_watch_find_by_tokens(trained, tokenizer, tmp_path):
    cfg, folder = trained
    run = [f"runs_dir={tmp_path}", *[f for f in KINDS[cfg.model.kind] if not f.startswith("run=")]]
    for step in (10, 20):
        source = str(folder / "checkpoint" / f"step-{step}")
        main(engine_job(run=cfg.run_name, scale="smoke", tokenizer=str(tokenizer), convert=source, overrides=run))
    run_dir = tmp_path / "smoke" / cfg.run_id
    batch = cfg.scale.batch_tokens
    assert list(snapshots(run_dir)) == [10 * batch, 20 * batch]
    assert run_window(run_dir, 2, 10 * batch, 20 * batch) == list(snapshots(run_dir).values())
    assert all(complete(path) for path in positions(run_dir).values()) and len(positions(run_dir)) == 2
    for step, model in zip((10, 20), snapshots(run_dir).values(), strict=True):
        plain = load_pretrained(folder / "plain" / str(step))
        assert torch.equal(logits(load_pretrained(model)), logits(plain))
        assert load_pretrained(model).config.architectures == [type(plain).__name__]


def test_what_is_no_checkpoint_of_the_run_is_refused(trained, tokenizer, tmp_path):
    cfg, folder = trained
    source = folder / "checkpoint" / "step-10"
    wrong = config("scale=smoke", *KINDS[cfg.model.kind], "model.layers=3").model
    with pytest.raises(ValueError, match=r"layers\.2\..* is missing; give the run"):
        convert(str(source), tmp_path / "out", wrong, 64, tokenizer)
    wider = config("scale=smoke", *KINDS[cfg.model.kind], "model.head_dim=8").model
    with pytest.raises(ValueError, match=r"has shape .* in model=smoke/"):
        convert(str(source), tmp_path / "out", wider, 64, tokenizer)
    with pytest.raises(ValueError, match="no such folder"):
        convert(str(source), tmp_path / "out", cfg.model, 64, tmp_path / "nowhere")
    biased = tmp_path / "step-30"
    bias = {"layers.0.moe.expert_bias_E": torch.tensor([0.0, 0.0, 0.0, 0.001])}
    save_step(biased, engine_state(folder / "plain" / "10") | bias)
    with pytest.raises(ValueError, match="expert_bias_E is not zero"):
        convert(str(biased), tmp_path / "out", cfg.model, 64, tokenizer)
    assert not (tmp_path / "out").exists()


def read_tables(path: Path) -> dict[str, dict]:
    """The tables of a written config, and that its code names none that it lacks."""
    tree = ast.parse(path.read_text())
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    }
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id.isupper()}
    assert used - {"DATASETS"} == values.keys()
    assert "$" not in path.read_text().replace('norm\\.weight$"', "")
    return values


@pytest.mark.parametrize("run", ["dense_70b", "moe_10b_100b", "moe_20b_200b"])
@pytest.mark.parametrize("schedule", ["constant", "wsd"])
def test_the_config_says_what_ours_says(run, schedule, tmp_path):
    cfg = config("scale=paper", f"run={run}", f"schedule={schedule}", "seed=3")
    path = write_config(cfg, tmp_path, "words")
    assert path.name == f"pma_{run}.py" and "torchtitan 0.3.0" in path.read_text().split('"""')[1]
    written = read_tables(path)
    training, rate = written["TRAINING"], written["SCHEDULE"]
    batch = training["global_batch_size"] * training["seq_len"]
    assert batch == cfg.scale.batch_tokens
    assert training["steps"] * batch == rate["total_steps"] * batch == cfg.train.total_tokens
    assert rate["warmup_steps"] * batch == cfg.schedule.warmup_tokens
    decay = round(rate["total_steps"] * rate["decay_ratio"])  # as torchtitan computes it
    assert decay * batch == cfg.schedule.decay_tokens
    assert written["CHECKPOINT"]["interval"] * batch == cfg.train.snapshot_interval
    assert written["CHECKPOINT"]["keep_latest_k"] == 0
    assert written["OPTIMIZER"] == {"lr": cfg.schedule.peak_lr, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    assert written["DEBUG"] == {"seed": 3} and written["FOLDERS"]["hf_assets_path"] == "words"
    assert written["MODEL"] == {key: value for key, value in cfg.model.items() if value is not None}
    # The rates themselves, by torchtitan's formula (components/optimizer/lr_scheduler.py), after the warm-up.
    shapes = {"linear": lambda p: 1 - p, "cosine": lambda p: 0.5 * (1 + torch.cos(torch.tensor(torch.pi * p)).item())}
    stable = rate["total_steps"] + 1 - decay
    for step in range(rate["warmup_steps"], training["steps"], 997):
        factor = 1.0 if step < stable else shapes[rate["decay_type"]]((step + 1 - stable) / decay)
        ours = learning_rate(cfg.schedule, cfg.train.total_tokens, step * batch)
        assert ours == pytest.approx(factor * written["OPTIMIZER"]["lr"], rel=1e-4, abs=1e-10)


def test_a_fork_goes_on_from_the_checkpoint_of_its_parent(tmp_path):
    cfg = config("scale=paper", "run=annealed_moe_3b_30b", f"runs_dir={tmp_path}")
    written = tables(cfg, "words")["CHECKPOINT"]
    step = cfg.init.parent.tokens // cfg.scale.batch_tokens
    assert written["initial_load_path"] == f"{tmp_path}/paper/moe_3b_30b-seed0/torchtitan/checkpoint/step-{step}"
    assert written["initial_load_model_only"] is False and step % written["interval"] == 0


@pytest.mark.parametrize(
    "override, key",
    [
        ("run=sft_pma", "init.parent.run=moe_main"),
        ("model.qk_norm=false", "model.qk_norm=False"),
        ("train.clip_norm=null", "train.clip_norm=null"),
        ("train.snapshot_dtype=bfloat16", "train.snapshot_dtype=bfloat16"),
        ("train.snapshots_at=[4001366016]", r"train.snapshots_at=\[4001366016\]"),
        ("init.weights=DIR", "init.weights=DIR"),
        ("train.part=continued", "train.part=continued"),
        ("data.hub=null", "data=paper"),
        ("data.hub=[{path: one},{path: two}]", r"data.hub=\['one', 'two'\]"),
    ],
)
def test_what_torchtitan_cannot_express_is_refused_by_name(override, key):
    with pytest.raises(ValueError, match=f"{key}: cannot be expressed for torchtitan .*: "):
        tables(config("scale=paper", override), "words")


def test_another_engine_is_refused():
    with pytest.raises(ValueError, match="engine=megatron: choose torchtitan"):
        main(engine_job(engine="megatron", run="dense_2b"))
