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
from full_disk import full_disk
from interrupts import interrupted
from kills_choose import killed_search
from kills_merge import killed_merge
from kills_reproduce import interrupted_reproduction, killed_reproduction
from kills_train import killed_training, killed_training_on_two
from kills_watch import killed_watch
from rivals import rival_folders, rival_merges
from surroundings import another_user, clocks_apart, no_descriptor_left

DAMAGED = [
    Campaign("damaged safetensors", damaged_safetensors, trials=150, sample=5),
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
    Campaign("damaged run", damaged_run, trials=50, sample=1),
    Campaign("damaged corpus", damaged_corpus, trials=25, sample=1),
    Campaign("damaged evaluation", damaged_evaluation, trials=25, sample=1),
    Campaign("damaged choice", damaged_choice, trials=10, sample=0),
    Campaign("damaged figures", damaged_figures, trials=40, sample=1),
    Campaign("damaged claims", damaged_claims, trials=20, sample=1),
]

DISTURBED = [
    # kills: every trial has several; 1,000 in all
    Campaign("killed merges", killed_merge, trials=120, sample=2),
    Campaign("killed training", killed_training, trials=40, sample=1),
    Campaign("killed training on two", killed_training_on_two, trials=4, sample=0),
    Campaign("killed watches", killed_watch, trials=48, sample=1),
    Campaign("killed searches", killed_search, trials=8, sample=0),
    Campaign("killed reproductions", killed_reproduction, trials=8, sample=0),
    # what else a machine does
    Campaign("rival merges", rival_merges, trials=150, sample=1),
    Campaign("rival folders", rival_folders, trials=30, sample=2),
    Campaign("full disk", full_disk, trials=150, sample=1),
    Campaign("no descriptor left", no_descriptor_left, trials=40, sample=2),
    Campaign("another user", another_user, trials=30, sample=2),
    Campaign("clocks apart", clocks_apart, trials=40, sample=2),
    Campaign("interrupts", interrupted, trials=60, sample=1),
    Campaign("interrupted reproductions", interrupted_reproduction, trials=6, sample=0),
]

ALL = [*DAMAGED, *DISTURBED]
