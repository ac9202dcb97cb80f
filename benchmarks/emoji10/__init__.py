"""Rebuilds Emoji-10, the data set and the two models that ship in `conspec.lens.emoji10`."""
