"""One module per tab of the playground, and downloads of what the tabs show."""
