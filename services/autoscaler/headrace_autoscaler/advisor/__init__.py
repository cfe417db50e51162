"""`python -m headrace_autoscaler.advisor`: what `headrace plan` runs. A question as JSON in, a table or JSON out."""
