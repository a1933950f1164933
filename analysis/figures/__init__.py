"""One file an experiment: its `describe(study)` returns what its figure shows.

The file's name is the experiment's name, and the folder holds nothing else. An experiment without a file gets the plain
figure of drawing/plain.py.
"""
