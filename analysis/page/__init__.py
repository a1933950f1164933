"""The report: one HTML page from the published records, and the same as a report in W&B."""
