"""Videos on disk to clips in memory: manifests, decoding, sampling and loading."""
