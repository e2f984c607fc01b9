"""``python -m orchestrator``: the console command where no script is installed, as in the folder of a Ray job."""

from orchestrator.cli import main

main()
