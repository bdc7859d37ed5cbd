"""What users drop: files, their typed pieces, media."""
