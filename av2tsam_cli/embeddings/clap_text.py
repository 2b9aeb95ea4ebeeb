"""CLAP's text encoders: RoBERTa for LAION, GPT-2 for Microsoft; both from transformers.

transformers takes seconds to import: only creating an encoder imports it.
"""

import torch
from torch import Tensor, nn

from av2tsam_cli.embeddings.clap import ClapConfig, MicrosoftProjection, laion_projection
from av2tsam_cli.embeddings.text import Gpt2Tokenizer, RobertaTokenizer, TextConfig

NORM_EPS = 1e-5
"""Of the LayerNorms of the published RoBERTa-base and GPT-2. The default of transformers' own
CLAP is 1e-12."""


class LaionText(nn.Module):
    """LAION CLAP's text encoder. N = phrases, L = tokens, E = `embed_dim`."""

    def __init__(self, config: TextConfig, embed_dim: int) -> None:
        from transformers import RobertaConfig, RobertaModel

        super().__init__()
        self.encoder = RobertaModel(
            RobertaConfig(
                vocab_size=config.vocabulary_size,
                hidden_size=config.dim,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.dim,
                max_position_embeddings=config.positions,
                type_vocab_size=1,
                layer_norm_eps=NORM_EPS,
                pad_token_id=RobertaTokenizer.PAD,
            )
        )
        self.projection = laion_projection(config.dim, embed_dim)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.logit_scale_text = nn.Parameter(torch.zeros(()))  # used to find sounds by text

    def forward(self, ids: Tensor) -> Tensor:
        """Embed token ids (N, L) as (N, E), not normalised."""
        is_token = ids.ne(RobertaTokenizer.PAD).long()
        embeddings: Tensor = self.projection(self.encoder(ids, is_token).pooler_output)
        return embeddings


class MicrosoftText(nn.Module):
    """Microsoft CLAP 2023's text encoder. N = phrases, L = tokens, E = `embed_dim`."""

    def __init__(self, config: TextConfig, embed_dim: int) -> None:
        from transformers import GPT2Config, GPT2Model

        super().__init__()
        self.encoder = GPT2Model(
            GPT2Config(
                vocab_size=config.vocabulary_size,
                n_positions=config.positions,
                n_embd=config.dim,
                n_layer=config.layers,
                n_head=config.heads,
                layer_norm_epsilon=NORM_EPS,
                bos_token_id=config.vocabulary_size - 1,
                eos_token_id=config.vocabulary_size - 1,
                use_cache=False,
            )
        )
        self.projection = MicrosoftProjection(config.dim, embed_dim)
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def forward(self, ids: Tensor) -> Tensor:
        """Embed token ids (N, L) as (N, E), not normalised.

        GPT-2 is causal, so the padding after the end mark does not change the state at the mark.
        """
        states = self.encoder(ids).last_hidden_state  # (N, L, dim)
        mark = ids.ne(Gpt2Tokenizer.PAD).sum(dim=1) - 1
        embeddings: Tensor = self.projection(states[torch.arange(len(ids)), mark])
        return embeddings


def build_clap_text(config: ClapConfig) -> nn.Module:
    """Build the text encoder of a CLAP with random weights.

    Raises:
        ValueError: The configuration has no text encoder.
    """
    if config.text is None:
        raise ValueError("this CLAP has no text encoder")
    kind = LaionText if config.kind == "laion" else MicrosoftText
    return kind(config.text, config.embed_dim)
