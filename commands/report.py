"""`alula report`: write a run's page anew."""

from alula.commands.console import OUT, print_results
from alula.commands.inputs import required
from alula.configs.schemas import ReportConfig
from alula.training.report import write_report


def run(config: ReportConfig, as_json: bool) -> None:
    """From the run's files alone."""
    OUT.print(f"report {write_report(required(config.run, 'run', 'runs/demo-peg_insertion-residual_ppo-0'))}")
    if as_json:
        print_results("report", [])
