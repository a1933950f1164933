"""Dense and MoE language models, and the training loss."""
