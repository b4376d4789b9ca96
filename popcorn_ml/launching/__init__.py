"""Having trainings and maps worked on elsewhere: by the workers of a dask cluster.

What is started is the business of `training` and `mapping`; nothing here changes a result.
"""
