"""When a job ends: windows of the week, the moments that people write, and the forecast. Pure."""
