"""Bytes to pictures, waves and frames. Every media file of the project is opened in this folder."""
