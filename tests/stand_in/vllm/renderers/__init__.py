"""Chat templates, which base models do without."""
