"""The language model: parameter layout, initialisation, and the engine's ops assembled into training and decoding."""
