"""Backbones and the network parts that methods share."""
