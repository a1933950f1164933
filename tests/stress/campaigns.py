"""All campaigns, in the order of their table."""

from __future__ import annotations

from campaign import Campaign
from damaged_sources import damaged_safetensors

ALL = [
    Campaign("damaged safetensors", damaged_safetensors, trials=250, sample=12),
]
