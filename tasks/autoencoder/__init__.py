"""Music autoencoders trained on noised latents."""
