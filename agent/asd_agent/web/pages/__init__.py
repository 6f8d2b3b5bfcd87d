"""One module a page: its handlers, and the routes that lead to them."""
