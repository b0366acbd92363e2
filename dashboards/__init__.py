"""What people see: the review console and the operators' dashboards."""
