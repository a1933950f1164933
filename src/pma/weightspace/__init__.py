"""What the weights around a merge look like: planes of scores, curvature."""
