"""The sections of an evaluation's page."""
