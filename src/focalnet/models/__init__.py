"""Whole networks: a FocalNet backbone and a head."""
