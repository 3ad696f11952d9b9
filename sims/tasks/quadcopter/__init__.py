"""Tasks for Crazyflies: hover, track, gates, land, formation."""
