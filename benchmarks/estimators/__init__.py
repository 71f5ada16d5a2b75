"""Pieces of `study_estimators.py`: teacher rows, estimators, gradients, tables."""
