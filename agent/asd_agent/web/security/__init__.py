"""Who may do what: users with scrypt passwords, sessions, and the guard in front of every request."""
