"""Figures as ratios to named baselines, measured in the same run. Never run as tests: machines are noisy."""
