"""The generic encoder: what `vfm-tiny` knows before it has seen a recording, learned from scenes that `domains.generic` draws."""
