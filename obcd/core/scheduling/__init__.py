"""Which request an endpoint gets next. Pure."""
