"""The largest sizes on torchtitan: its config from ours, and the way back."""

ENGINE = "torchtitan 0.3.0"  # the release that every key and name here was checked against
