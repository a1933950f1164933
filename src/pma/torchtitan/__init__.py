"""The largest sizes on torchtitan: its config from ours, and the way back."""
