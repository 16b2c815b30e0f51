"""The manual: its pages, the two that are generated, and the man pages made of them."""
