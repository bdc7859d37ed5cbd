"""Public data sets, as published, to raw folders with a configuration; one file each."""
