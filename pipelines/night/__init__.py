"""The past as of the end of a day."""
