"""Audio in and out: decoding, resampling, encoding, the faded tail, speech detection."""
