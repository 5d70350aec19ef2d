"""What stands before and after a request: access, limits, the operator's rules, and the output filter."""
