"""What every HTTP server of obcd shares: its sockets, its door, the program that serves."""
