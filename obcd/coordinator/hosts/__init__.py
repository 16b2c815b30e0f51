"""The hosts that register endpoints in the hosts folder, as the coordinator sees them."""
