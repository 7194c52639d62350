"""What a bundled checkpoint is called: family, kind of noise, distillation, color mode and level, such as
"mdrn-2b-hads-gray-15"."""

from __future__ import annotations

from mdrn_cli.checkpoint import Checkpoint
from mdrn_cli.errors import UsageError
from mdrn_cli.manifest import CAMERA, DISTILLATIONS, FAMILY_BLOCKS, NAME_PATTERN, RESERVED, load_manifest

FAMILY_FEATURES = 64


def distillation_of(checkpoint: Checkpoint, asked: str | None) -> str | None:
    """How the network was distilled: as its run has written down, as it is said to be where that tells nothing.

    Raises:
        UsageError: there is no such distillation, or the run's is another.
    """
    if asked not in DISTILLATIONS:
        raise UsageError(f"distilled must be one of {', '.join(filter(None, DISTILLATIONS))}, not {asked!r}")
    if "distillation" not in checkpoint.record:
        return asked
    mode = checkpoint.distillation.get("mode")
    if asked not in (None, mode):
        raise UsageError(f"the run was {'distilled by ' + str(mode) if mode else 'not distilled'}, not by {asked}")
    return mode


def checkpoint_name(checkpoint: Checkpoint, distilled: str | None) -> str:
    """What the network is called.

    Raises:
        UsageError: the network is of no family, or nothing is called by such a noise level.
    """
    camera = CAMERA if checkpoint.noise == CAMERA else None
    parts = [family_of(checkpoint), camera, distilled, checkpoint.config.color, f"{checkpoint.sigma:g}"]
    name = "-".join(part for part in parts if part)
    if not NAME_PATTERN.fullmatch(name):
        raise UsageError(f"a checkpoint cannot be named {name!r}", "bundled networks have whole noise levels")
    return name


def family_of(checkpoint: Checkpoint) -> str:
    """The family a network is of.

    Raises:
        UsageError: there is none of its width, or of its number of blocks.
    """
    config = checkpoint.config
    if config.features != FAMILY_FEATURES:
        raise UsageError(f"no family has {config.features} features", f"bundled networks have {FAMILY_FEATURES}")
    for family, blocks in FAMILY_BLOCKS.items():
        if config.blocks == blocks:
            return family
    there_are = " or ".join(map(str, sorted(FAMILY_BLOCKS.values())))
    raise UsageError(f"no family has {config.blocks} blocks", f"bundled networks have {there_are}")


def name_for(checkpoint: Checkpoint, distilled: str | None, asked: str | None, own: bool) -> str:
    """The name a checkpoint gets: the one that says what it is, or any that is free in a manifest of one's own.

    Raises:
        UsageError: the name asked for is another, or taken, or cannot be one.
    """
    if not own or asked is None:
        name = checkpoint_name(checkpoint, distilled)
        if asked not in (None, name):
            raise UsageError(f"this checkpoint is {name}, not {asked}", "other names go into a --manifest of your own")
    else:
        name = asked
        if name in RESERVED:
            raise UsageError(f"{name} is a choice of --model, not a name for a checkpoint", "give another --name")
        if not NAME_PATTERN.fullmatch(name):
            raise UsageError(f"a checkpoint cannot be named {name!r}", "take a-z, 0-9 and -, at most 64 of them")
    if own and any(record.name == name for record in load_manifest()):
        raise UsageError(f"{name} is the name of a bundled checkpoint", "give another --name")
    return name
