"""What useg offers over the network: a home, to those who have a right to it."""
