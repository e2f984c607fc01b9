"""EEG encoding: recordings, preprocessing, temporal response functions, permutation and group tests."""
