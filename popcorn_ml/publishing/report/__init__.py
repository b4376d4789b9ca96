"""The report of a country's year: one HTML page that holds all it shows, to read or to print.

`contents` puts together what it says from the facts and tables of the folder, `maps` and `charts`
draw its pictures, `report.html.j2` is the page. It reads nothing but the folder.
"""

from popcorn_ml.publishing.report.contents import write_report

__all__ = ["write_report"]
