"""The hosts folder, in which hosts register their endpoints: records, registration and the coordinator's side."""
