"""fed-bench: experiments, local fleets, reports. The only package that sees both sides."""
