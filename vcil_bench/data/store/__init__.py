"""The frame store: videos decoded once into JPEG frames that are read in little time."""
