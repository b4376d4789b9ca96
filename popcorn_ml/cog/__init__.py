"""Writing cloud-optimised GeoTIFFs block by block, by whichever threads and machines make them.

`profile` says what a raster is, `blocks` turns pixels into a block's bytes and into the next
coarser level, `pyramid` gathers windows into blocks of every level, `parts` keeps finished blocks
on disk until all are there, `layout` lays the file out, `writer` is what the rest of the project
calls. Reading is `raster`'s business.
"""
