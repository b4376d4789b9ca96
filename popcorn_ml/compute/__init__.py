"""Where training and mapping run: devices, locks, commands.

Nothing here changes a result, so these modules are no part of any asset's code version. Importing
them loads no torch.
"""
