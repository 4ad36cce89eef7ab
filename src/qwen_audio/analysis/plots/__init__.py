"""Panels, and their renderers for matplotlib and plotly."""
