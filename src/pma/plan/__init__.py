"""What runs would take, worked out without running them."""
