"""Facts about media that are not a verdict: text in the image, hashes, speech."""
