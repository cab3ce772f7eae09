#!/bin/sh
# Deletes Jobs, given by name. Snakemake takes one executable for this, not a command with arguments.
exec python "$(dirname "$0")/jobs.py" cancel "$@"
