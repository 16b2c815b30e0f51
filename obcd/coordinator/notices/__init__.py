"""The events that the coordinator sees itself, and the process that sends notifications."""
