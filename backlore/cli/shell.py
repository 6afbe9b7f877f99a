"""`backlore shell`: a Python prompt within the application. `backlore completion`: completion by the tab key."""

import ast
import asyncio
import code
import sys
from inspect import isawaitable
from types import CodeType, FunctionType
from typing import Any

import click
from click.shell_completion import get_completion_class

from backlore import __version__
from backlore.cli import options
from backlore.cli.routes import load
from backlore.cli.within import reach
from backlore.core.config import Context
from backlore.core.keys import key

# Tells the user where to put it, so that each new shell has it.
PROFILE = {
    "bash": '# in ~/.bashrc: eval "$(backlore completion bash)"',
    "zsh": '# in ~/.zshrc, below compinit: eval "$(backlore completion zsh)"',
    "fish": "# once: backlore completion fish > ~/.config/fish/completions/backlore.fish",
}


class Prompt(code.InteractiveConsole):
    """A prompt that understands `await`. The event loop runs only while an input does, so Ctrl-C ends any input."""

    def __init__(self, names: dict[str, Any], runner: "asyncio.Runner"):
        super().__init__(names)
        self._names = names
        self._runner = runner
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

    def runcode(self, code: CodeType) -> None:
        """Run an input in the loop. An exception is shown, and the prompt goes on."""

        async def run() -> None:
            done = FunctionType(code, self._names)()
            if isawaitable(done):
                await done

        try:
            self._runner.run(run())
        except SystemExit:
            raise
        except KeyboardInterrupt:
            self.write("\nKeyboardInterrupt\n")
        except BaseException:
            self.showtraceback()


@click.command()
@click.argument("env", default="dev")
@options.app
@options.data
def shell(env: str, folder: str, data: str | None) -> None:
    """Open a Python prompt within the application.

    The application, or its redis, must be running. The prompt has app, redis, users, key and settings, and `await`
    works: await redis.ping()
    """
    app = load(Context(folder=folder, env=env, flags={"data": data} if data else {}))
    at_hand = {"app": app, "redis": app.redis, "users": app.identity.users, "key": key, "settings": app.settings}
    with asyncio.Runner() as runner:
        runner.run(reach(app))
        try:
            prompt(at_hand, runner, f"Backlore {__version__}, {app.settings.config.name} {env}: {', '.join(at_hand)}")
        finally:
            runner.run(_stop(app))
    app.notify.flush()


def prompt(at_hand: dict[str, Any], runner: "asyncio.Runner", banner: str) -> None:
    """Read inputs until they end. From a pipe it prints no banner or prompt, only what the inputs print."""
    names = {"__name__": "__console__", "asyncio": asyncio, **at_hand}
    if sys.stdin.isatty():
        complete(names)
    else:
        sys.ps1 = sys.ps2 = banner = ""
    Prompt(names, runner).interact(banner, exitmsg="")


def complete(names: dict[str, Any]) -> None:
    """Make the tab key complete `names`, where Python has readline."""
    try:
        import readline
        import rlcompleter
    except ImportError:
        return
    readline.set_completer(rlcompleter.Completer(names).complete)
    is_libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")


async def _stop(app: Any) -> None:
    for hook in app.web.on_stop:
        await hook()


@click.command()
@click.argument("shell", type=click.Choice(list(PROFILE)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete this command."""
    complete_class = get_completion_class(shell)
    assert complete_class is not None
    root = context.find_root()
    click.echo(PROFILE[shell])
    click.echo(complete_class(root.command, {}, "backlore", "_BACKLORE_COMPLETE").source())
