"""What is shown: one project's R&D accounting, groups of jobs, and the formats of both."""
