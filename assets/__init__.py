"""Dagster definitions: what exists, when it is rebuilt and how it is checked. No algorithm lives here."""
