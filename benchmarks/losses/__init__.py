"""Forms of the losses, their measurement and their table, for `bench_loss.py`."""
