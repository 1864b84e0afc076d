"""The guide: the text that steers the compression, and its token ids."""
