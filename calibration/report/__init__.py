"""The report: its content, and the page that shows it."""
