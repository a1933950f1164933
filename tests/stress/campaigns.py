"""All campaigns, in the order of their table."""

from __future__ import annotations

from campaign import Campaign
from damaged_sources import damaged_safetensors
from full_disk import full_disk
from interrupts import interrupted
from kills_choose import killed_search
from kills_merge import killed_merge
from kills_reproduce import interrupted_reproduction, killed_reproduction
from kills_train import killed_training, killed_training_on_two
from kills_watch import killed_watch
from rivals import rival_folders, rival_merges
from surroundings import another_user, clocks_apart, no_descriptor_left

ALL = [
    Campaign("damaged safetensors", damaged_safetensors, trials=250, sample=12),
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
    Campaign("full disk", full_disk, trials=150, sample=2),
    Campaign("no descriptor left", no_descriptor_left, trials=40, sample=2),
    Campaign("another user", another_user, trials=30, sample=2),
    Campaign("clocks apart", clocks_apart, trials=40, sample=2),
    Campaign("interrupts", interrupted, trials=60, sample=2),
    Campaign("interrupted reproductions", interrupted_reproduction, trials=6, sample=0),
]
