"""`alula serve`: answer robots' questions to a policy over TCP."""

import secrets
import threading

from alula.commands.console import ERR, OUT
from alula.commands.inference import load_thinkers
from alula.commands.inputs import required
from alula.configs.robots import ServeConfig
from alula.real_robot.planning.server import PolicyServer


def run(config: ServeConfig, as_json: bool) -> None:
    """Serve until Ctrl-C."""
    del as_json
    checkpoint = required(config.checkpoint, "checkpoint", "runs/demo-peg_insertion-residual_ppo-0/finetuning")
    session, description = load_thinkers(str(checkpoint), config.seed)
    token = config.token or secrets.token_urlsafe(16)
    server = PolicyServer(session, description, config.host, config.port, token)
    if not server.loopback:
        ERR.print(
            f"warning: {config.host} can be reached by other machines, and whoever is on the way can read all that is "
            "sent, the token included. On a network that others use, keep host=127.0.0.1 and use an SSH tunnel"
        )
    OUT.print(f"serving {checkpoint}: {description.horizon} actions a plan, {description.rate:g} a second")
    OUT.print(f"listening at {config.host}:{server.port}")
    OUT.print(f"token {token}")
    try:
        server.start()
        threading.Event().wait()
    except KeyboardInterrupt:
        OUT.print("stopped")
    finally:
        server.close()
