"""Batches computed in parts: over several processes (torchrun) or in chunks that fit in memory."""
