"""Adapters, which nothing here uses."""
