"""Classes of people and their colours, the same in pictures, styles, reports and the web map."""

PEOPLE_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Bounds of the classes that people per hectare are shown in: a hamlet, a town and a block of flats
all have colours of their own."""

HEAT = (
    "#f7f7f2", "#ffeda0", "#fed976", "#feb24c", "#fd8d3c", "#fc4e2a", "#e31a1c", "#b10026",
    "#7a0177", "#49006a",
)  # fmt: skip
"""Their colours, one more: from light to dark, told apart by the colour-blind and in grey
(ColorBrewer's YlOrRd, continued)."""
