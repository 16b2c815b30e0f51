"""Reports on what ran, how fast, on which cards, and what it cost: from the history and from manifests."""
