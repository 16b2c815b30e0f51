"""What clients of the API send and get: requests, ids and refusals. It opens nothing."""
