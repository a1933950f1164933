"""From records to verdicts: the rules of claims.yaml, the evidence for each claim, tables.

Not called `claims`, for the command claims.py beside it has that name."""
