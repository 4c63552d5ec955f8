"""`headrace completion`: what makes a shell complete our commands and flags."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.completion import ShellDetectionError

from headrace.core.errors import ConfigError

Shell = Literal["bash", "zsh", "fish", "powershell"]


def add_completion_command(app: App) -> None:
    def completion(
        shell: Annotated[
            Shell | None, Parameter(help="bash, zsh, fish or powershell [default: this one]", metavar="SHELL")
        ] = None,
        /,
        *,
        install: Annotated[bool, Parameter(help="Put it where the shell looks for it", negative="")] = False,
    ) -> int:
        """Print what makes a shell complete the commands and flags of headrace.

        To try it: source <(headrace completion bash)
        """
        try:
            text = str(app.install_completion(shell=shell)) if install else app.generate_completion(shell=shell)
        except ShellDetectionError:
            raise ConfigError(
                "the shell is not known; name it: headrace completion bash, zsh, fish or powershell."
            ) from None
        except OSError as error:
            raise ConfigError(f"the completion cannot be written: {error}.") from None
        print(text)
        return 0

    app.command(completion, name="completion")
