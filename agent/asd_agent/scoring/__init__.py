"""From a window to a result, and from results to what the alarm is told: the one way that every path takes."""
