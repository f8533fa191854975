"""Generic moving pictures: procedural scenes that show nothing in particular, whose motion is known.

What a general encoder starts from. Nothing here is taken from, or made to look like, the recordings or phantoms of any domain.
"""
