"""Preparing a network for fast inference: precision, folding, fused convolutions."""
