"""Whole training steps, for bench_step.py: models, forms of a step, measurements, a page."""
