"""Whole networks: a FocalNet trunk and a head."""
