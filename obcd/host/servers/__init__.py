"""Which servers a host runs, and starting one."""
