"""What passes find out about a module without changing it, and the arithmetic behind their choices."""
