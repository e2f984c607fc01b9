"""Audio corpora, synthesis of melodies, and the compressed complex spectrogram."""
