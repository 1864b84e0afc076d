"""The calibration report: its data, its JSON document and its HTML page."""
