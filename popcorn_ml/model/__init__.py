"""The networks: U-Net, extractor and occupancy model, their exact tiling, their weights on disk.

Nothing here reads a raster or trains.
"""
