"""A local embedding model as the settings want it: its own dimensions or fewer, its own prefixes or others."""

from dataclasses import replace

import msgspec

from penstock.errors import ConfigError
from penstock.models.embedder import Loaded, load_model
from penstock.models.options import LocalEmbedderOptions, ModelsOptions
from penstock.models.prefixes import chosen_prefixes


def load_embedder(name: str, spec: LocalEmbedderOptions, options: ModelsOptions) -> Loaded:
    """Load the model that `spec` describes, to be known as `name`. Blocking; raises what `load_model` raises.

    ConfigError, too, for more dimensions than the model has.
    """
    loaded = load_model(spec.model, options, engine=spec.engine)
    own = loaded.info.dimensions
    if spec.dimensions > own:
        loaded.engine.encoder.close()
        raise ConfigError(
            f"The model {spec.model} has {own} dimensions, the settings ask for {spec.dimensions} "
            f"(models.embedders.{name}.dimensions). Ask for {own} at most, or leave it out for all."
        )
    prefixes = chosen_prefixes(loaded.recipe.prefixes, query=spec.query_prefix, passage=spec.passage_prefix)
    return replace(
        loaded,
        info=replace(
            loaded.info, name=name, dimensions=spec.dimensions or own, told=f"{spec.model}|{prefixes.passage}"
        ),
        recipe=msgspec.structs.replace(loaded.recipe, prefixes=prefixes),
    )
