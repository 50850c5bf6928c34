"""Verification of protocols, data and weights, without training anything."""
