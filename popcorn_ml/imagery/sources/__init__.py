"""The sources of imagery, one module each; `popcorn_ml.imagery.source` says what one must have."""
