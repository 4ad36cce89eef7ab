"""What each tap of the embedded checkpoint holds: the clips, the commands, the page."""
