"""All campaigns, in the order of their table."""

from __future__ import annotations

from campaign import Campaign
from damaged_folders import damaged_adapters, damaged_config, linked_assets
from damaged_pickles import damaged_dcp, damaged_torch, dcp_output
from damaged_recipes import odd_positions, odd_weights, odd_windows
from damaged_records import damaged_claims, damaged_figures
from damaged_runs import damaged_corpus, damaged_run
from damaged_scores import damaged_choice, damaged_evaluation
from damaged_sources import damaged_safetensors, damaged_shards, odd_numbers
from damaged_watch import damaged_watch

DAMAGED = [
    Campaign("damaged safetensors", damaged_safetensors, trials=150, sample=8),
    Campaign("damaged shards", damaged_shards, trials=100, sample=5),
    Campaign("odd numbers", odd_numbers, trials=50, sample=3),
    Campaign("damaged config", damaged_config, trials=100, sample=4),
    Campaign("linked assets", linked_assets, trials=20, sample=1),
    Campaign("damaged adapters", damaged_adapters, trials=80, sample=4),
    Campaign("odd weights", odd_weights, trials=50, sample=3),
    Campaign("odd positions", odd_positions, trials=40, sample=2),
    Campaign("odd windows", odd_windows, trials=40, sample=2),
    Campaign("damaged torch.save", damaged_torch, trials=80, sample=4),
    Campaign("damaged dcp", damaged_dcp, trials=100, sample=5),
    Campaign("dcp output", dcp_output, trials=20, sample=1),
    Campaign("damaged watch", damaged_watch, trials=50, sample=2),
    Campaign("damaged run", damaged_run, trials=50, sample=2),
    Campaign("damaged corpus", damaged_corpus, trials=25, sample=1),
    Campaign("damaged evaluation", damaged_evaluation, trials=25, sample=1),
    Campaign("damaged choice", damaged_choice, trials=10, sample=0),
    Campaign("damaged figures", damaged_figures, trials=40, sample=2),
    Campaign("damaged claims", damaged_claims, trials=20, sample=1),
]

ALL = [*DAMAGED]
