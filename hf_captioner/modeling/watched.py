"""Whether the weights of a module are still what they were."""

from torch import nn


class WatchedWeights:
    """The weights of a module at one time, for what was made of them and must not outlive them.

    It notices weights that are changed in place, replaced or moved, but not a change through a tensor's `.data`.
    """

    def __init__(self, module: nn.Module) -> None:
        self._seen = [
            (holder._parameters, name, parameter, parameter._version, parameter.data_ptr())
            for holder in module.modules()
            for name, parameter in holder._parameters.items()
            if parameter is not None
        ]

    def unchanged(self) -> bool:
        return all(
            parameters.get(name) is parameter and parameter._version == version and parameter.data_ptr() == place
            for parameters, name, parameter, version, place in self._seen
        )
