"""From a window to a result, and from results to alarms: the one way that every path takes."""
