"""The demo country: scenes, census and the true population of a place that does not exist.

`country.write_country` writes everything that a country without network or accounts needs, in the
formats of real providers, so that the code that reads real scenes and census files reads these.

- `spec` says what is simulated; `terrain`, `settlements` and `world` make one consistent place;
- `optics` and `radar` say what Sentinel-2 and Sentinel-1 see of it on one day;
- `scenes` writes those views as scenes and STAC items, `census` the units and counts;
- `training_places` renders other places with building labels for pre-training.

Nothing here knows how composites are built, how the model works or how it is judged.
"""
