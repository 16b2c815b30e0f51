"""What a submitter asks of jobs that are there: control and retry."""
