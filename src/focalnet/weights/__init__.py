"""Weights: every published layout of a FocalNet, and the facts that travel with a file."""
