"""Autoregressive rectified-flow models of latent sequences, and their likelihood."""
