"""The science: from Sentinel images and census counts to a population map, free of Dagster."""

from popcorn_ml.surroundings import settle

settle()
