"""Dense and MoE language models: built and loaded, counted, and their training loss."""
