"""Train several runs one after the other in the processes that torchrun started, which import torch only once.

torchrun --nproc_per_node=2 runs_in_turn.py OVERRIDES_JSON OVERRIDES_JSON...
"""

from __future__ import annotations

import json
import sys

from hydra import compose, initialize_config_dir

from pma.config import CONF_DIR, register
from pma.train.loop import train

if __name__ == "__main__":
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        for overrides in sys.argv[1:]:
            train(compose("config", json.loads(overrides)))
