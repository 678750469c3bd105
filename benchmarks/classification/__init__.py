"""Training and validation of the classification of sources, on simulated detectors with known causes."""
