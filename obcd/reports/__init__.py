"""Floor 6: what people do with prompts before and answers after: prepare, print, merge."""
