"""Sites that share sums over their users, and no logs."""
