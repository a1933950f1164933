# ruff: noqa: F821
"""$run_id for $engine, written by `python -m pma.engine`; write it again rather than edit it.

    PYTHONPATH=$folder torchrun --nnodes NODES --nproc_per_node 8 -m torchtitan.train --module $module --config pretrain

Every key was checked against the source of $engine. What is not as in `python -m pma.train`:
- the rate of a step of the warm-up is that of our next step; from the warm-up's end on the rates are the same
- the documents come streamed, in their order, and attention does not cross from one to the next
- a checkpoint, at every step that we would save a snapshot at, holds the optimizer too, and none is deleted
- experts are balanced layer by layer, each process on its own tokens (Balanced below); ours takes all layers at once
Options of the machine, such as --parallelism.expert_parallel_degree 8 or --compile.enable, go behind the command.
"""

from dataclasses import dataclass
from functools import partial

import torch
from datasets import load_dataset
from torch import nn
from torchtitan.components.checkpointer import CheckpointManager
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.optimizer import (
    LRSchedulersContainer,
    OptimizersContainer,
    ParamGroupConfig,
    register_moe_load_balancing_hook,
)
from torchtitan.config import DebugConfig, TrainingConfig
from torchtitan.distributed.activation_checkpoint import FullAC
from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import DATASETS, HuggingFaceTextDataLoader
from torchtitan.models.common import CosSinRoPE, Embedding, Linear
from torchtitan.models.common.config_utils import (
    get_attention_config,
    make_ffn_config,
    make_gqa_config,
    make_moe_config,
    make_routed_experts_config,
)
from torchtitan.models.common.moe import TokenChoiceTopKRouter
from torchtitan.models.common.nn_modules import RMSNorm
from torchtitan.models.common.param_init import skip_param_init
from torchtitan.models.qwen3.model import Qwen3Model, Qwen3TransformerBlock
from torchtitan.models.qwen3.parallelize import parallelize_qwen3
from torchtitan.models.qwen3.state_dict_adapter import Qwen3StateDictAdapter
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.trainer import Trainer

# The tables stand here.


class WithLoss(torch.autograd.Function):
    """The scores as they are; backward adds the gradient of a loss that they carry along."""

    @staticmethod
    def forward(ctx, scores, loss):
        ctx.save_for_backward(loss)
        return scores.view_as(scores)

    @staticmethod
    def backward(ctx, grad):
        return grad, torch.ones_like(ctx.saved_tensors[0])


class Balanced(TokenChoiceTopKRouter):
    """The router with the load-balancing loss of Switch Transformer (arXiv 2101.03961, eq. 4), a mean over layers.

    In place of torchtitan's bias of experts, for which Qwen3-MoE has no tensor. torchtitan divides the sum over all
    tokens of the cross-entropy by the tokens of a batch, and so is this loss weighted.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(TokenChoiceTopKRouter.Config):
        coefficient: float
        batch_tokens: int

    def __init__(self, config):
        super().__init__(config)
        self.coefficient, self.batch_tokens = config.coefficient, config.batch_tokens

    def forward(self, x_BLD, expert_bias_E=None):
        chosen_scores, chosen, scores = super().forward(x_BLD, expert_bias_E)
        if not self.training:
            return chosen_scores, chosen, scores
        tokens = scores.shape[0] * scores.shape[1]
        share = torch.zeros_like(scores).scatter_(-1, chosen, 1.0).flatten(0, 1).mean(0)
        loss = self.num_experts * (share * scores.flatten(0, 1).mean(0)).sum()
        weight = self.coefficient * tokens / self.batch_tokens
        return WithLoss.apply(chosen_scores, loss * weight), chosen, scores


def norm(width):
    return RMSNorm.Config(normalized_shape=width, eps=1e-6, param_init={"weight": nn.init.ones_})


def layer():
    m, init = MODEL, {"weight": partial(nn.init.normal_, std=MODEL["initializer_range"])}
    attention = make_gqa_config(
        dim=m["hidden_size"],
        n_heads=m["heads"],
        n_kv_heads=m["kv_heads"],
        head_dim=m["head_dim"],
        wqkv_param_init=init,
        wo_param_init=init,
        inner_attention=get_attention_config("flex"),
        fuse_qkv=True,
        rope=CosSinRoPE.Config(dim=m["head_dim"], max_seq_len=TRAINING["seq_len"], theta=m["rope_theta"]),
        qk_norm=norm(m["head_dim"]),
    )
    if m["kind"] == "dense":
        width = m["intermediate_size"]
        ffn = make_ffn_config(dim=m["hidden_size"], hidden_dim=width, w1_param_init=init, w2w3_param_init=init)
        feed_forward = {"feed_forward": ffn}
    else:
        router = Balanced.Config(
            num_experts=m["experts"],
            gate=Linear.Config(in_features=m["hidden_size"], out_features=m["experts"], param_init=init),
            top_k=m["experts_per_token"],
            score_func="softmax",
            route_norm=True,
            coefficient=m["load_balancing_coefficient"] / m["layers"],
            batch_tokens=TRAINING["global_batch_size"] * TRAINING["seq_len"],
        )
        routed = make_routed_experts_config(
            dim=m["hidden_size"],
            hidden_dim=m["expert_intermediate_size"],
            num_experts=m["experts"],
            top_k=m["experts_per_token"],
            param_init={name: init["weight"] for name in ("w1_EFD", "w2_EDF", "w3_EFD")},
            comm_backend="standard",
        )
        moe = make_moe_config(num_experts=m["experts"], router=router, routed_experts=routed, load_balance_coeff=None)
        feed_forward = {"moe": moe}
    return Qwen3TransformerBlock.Config(
        attention_norm=norm(m["hidden_size"]), ffn_norm=norm(m["hidden_size"]), attention=attention, **feed_forward
    )


def model():
    m, init = MODEL, {"weight": partial(nn.init.normal_, std=MODEL["initializer_range"])}
    tied = m["tie_embeddings"]
    return Qwen3Model.Config(
        vocab_size=m["vocab_size"],
        dim=m["hidden_size"],
        norm=norm(m["hidden_size"]),
        enable_weight_tying=tied,
        tok_embeddings=Embedding.Config(
            num_embeddings=m["vocab_size"],
            embedding_dim=m["hidden_size"],
            param_init={"weight": skip_param_init} if tied else init,
        ),
        lm_head=Linear.Config(in_features=m["hidden_size"], out_features=m["vocab_size"], param_init=init),
        layers=[layer() for _ in range(m["layers"])],
    )


def documents(path):
    return load_dataset(path, name=DATA["name"], revision=DATA["revision"], split=DATA["split"], streaming=True)


def pretrain():
    DATASETS["pma"] = DatasetConfig(
        path=DATA["path"], loader=documents, sample_processor=lambda row: row[DATA["text_field"]]
    )
    adamw = {key: OPTIMIZER[key] for key in ("lr", "betas", "eps")}
    decay = {r"norm\.weight$": 0.0, ".*": OPTIMIZER["weight_decay"]}  # none on the gains of norms
    groups = [
        ParamGroupConfig(pattern=pattern, optimizer_name="AdamW", optimizer_kwargs=adamw | {"weight_decay": rate})
        for pattern, rate in decay.items()
    ]
    return Trainer.Config(
        model_spec=ModelSpec(
            name="qwen3",
            flavor=MODEL["name"],
            model=model(),
            parallelize_fn=parallelize_qwen3,
            pipelining_fn=pipeline_llm,
            post_optimizer_build_fn=register_moe_load_balancing_hook,
            state_dict_adapter=Qwen3StateDictAdapter,
        ),
        loss=ChunkedLossWrapper.Config(loss_fn=CrossEntropyLoss.Config(global_vocab_size=MODEL["vocab_size"])),
        dataloader=HuggingFaceTextDataLoader.Config(dataset="pma"),
        optimizer=OptimizersContainer.Config(param_groups=groups),
        lr_scheduler=LRSchedulersContainer.Config(**SCHEDULE),
        training=TrainingConfig(**TRAINING),
        checkpoint=CheckpointManager.Config(**CHECKPOINT),
        activation_checkpoint=FullAC.Config(),
        metrics=MetricsProcessor.Config(**METRICS),
        debug=DebugConfig(**DEBUG),
        **FOLDERS,
    )
