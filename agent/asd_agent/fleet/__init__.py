"""Many agents at once, over the requests that each of them serves; there is no server of ours."""
