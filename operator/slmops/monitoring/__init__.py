"""What servers in production told, judged. Pure."""
