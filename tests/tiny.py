"""Tiny models of real architectures, written with save_pretrained: tests load them through the real code path."""

from pathlib import Path
from typing import Any

LAYERS: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def byte_tokenizer(folder: Path, end: bool = False, length: int = 64) -> int:
    """A byte-level tokenizer (any language, emoji too) with pad, unk and end tokens; returns its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "</s>", "<s>", "<unk>"]
    vocab = {t: i for i, t in enumerate([*special, *alphabet])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if end:
        made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=length
    )
    fast.save_pretrained(folder)
    return len(vocab)


def gpt2(folder: Path) -> Path:
    """A decoder without a pad token of its own in the model, last-token pooling."""
    from transformers import GPT2Config, GPT2Model

    size = byte_tokenizer(folder)
    GPT2Model(GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=64)).save_pretrained(folder)
    return folder


def llama(folder: Path) -> Path:
    """A decoder with rotary positions, the shape of embedding LLMs."""
    from transformers import LlamaConfig, LlamaModel

    size = byte_tokenizer(folder, end=True)
    config = LlamaConfig(vocab_size=size, num_key_value_heads=2, max_position_embeddings=64, **LAYERS)
    LlamaModel(config).save_pretrained(folder)
    return folder


def xlnet(folder: Path) -> Path:
    """Relative positions, a class token at the end, no length limit of its own."""
    from transformers import XLNetConfig, XLNetModel

    size = byte_tokenizer(folder, end=True, length=10**9)
    XLNetModel(XLNetConfig(vocab_size=size, d_model=32, n_layer=2, n_head=4, d_inner=64)).save_pretrained(folder)
    return folder


def sentence_bert(folder: Path) -> Path:
    """The layout of sentence-transformers: CLS pooling, a dense layer, a default prompt, a shorter limit."""
    import json

    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    size = byte_tokenizer(folder)
    BertModel(BertConfig(vocab_size=size, max_position_embeddings=64, **LAYERS)).save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    for name in ("1_Pooling", "2_Dense"):
        (folder / name).mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    dense = {"in_features": 32, "out_features": 12, "activation_function": "torch.nn.modules.activation.Tanh"}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(dense))
    state = {"linear.weight": torch.randn(12, 32), "linear.bias": torch.randn(12)}
    save_file(state, folder / "2_Dense" / "model.safetensors")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 40}')
    prompts = {"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": "passage"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return folder


def clip(folder: Path) -> Path:
    """Text and image in one space."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    size = byte_tokenizer(folder, end=True)
    text = CLIPTextConfig(vocab_size=size, max_position_embeddings=64, eos_token_id=1, **LAYERS)
    vision = CLIPVisionConfig(image_size=32, patch_size=8, **LAYERS)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=24)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def siglip(folder: Path) -> Path:
    """Text and image in one space; texts padded to the full length without a mask."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipTextConfig, SiglipVisionConfig

    size = byte_tokenizer(folder, length=24)
    text = SiglipTextConfig(vocab_size=size, max_position_embeddings=24, projection_size=32, **LAYERS)
    vision = SiglipVisionConfig(image_size=32, patch_size=8, **LAYERS)
    SiglipModel(SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def clap(folder: Path) -> Path:
    """Text and audio in one space."""
    from transformers import ClapAudioConfig, ClapConfig, ClapFeatureExtractor, ClapModel, ClapTextConfig

    size = byte_tokenizer(folder)
    text = ClapTextConfig(vocab_size=size, max_position_embeddings=66, projection_dim=24, **LAYERS)
    audio = ClapAudioConfig(
        spec_size=64,
        num_mel_bins=16,
        patch_embeds_hidden_size=16,
        hidden_size=32,
        depths=[1, 1],
        num_attention_heads=[2, 2],
        window_size=4,
        projection_dim=24,
        num_hidden_layers=2,
    )
    ClapModel(ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=24)).save_pretrained(
        folder
    )
    ClapFeatureExtractor(
        feature_size=16, sampling_rate=16_000, max_length_s=2, truncation="rand_trunc"
    ).save_pretrained(folder)
    return folder


def resnet(folder: Path) -> Path:
    """A convolutional network that pools feature maps."""
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1])
    ResNetModel(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875).save_pretrained(folder)
    return folder


def dinov2(folder: Path) -> Path:
    """A self-supervised vision Transformer."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    shape = {k: v for k, v in LAYERS.items() if k != "intermediate_size"}
    Dinov2Model(Dinov2Config(image_size=28, patch_size=14, **shape)).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def ast(folder: Path) -> Path:
    """An audio spectrogram Transformer."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    ASTModel(ASTConfig(max_length=128, num_mel_bins=32, **LAYERS)).save_pretrained(folder)
    ASTFeatureExtractor(max_length=128, num_mel_bins=32).save_pretrained(folder)
    return folder


def hubert(folder: Path) -> Path:
    """A waveform model."""
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    convolutions: dict[str, Any] = {"conv_dim": (16, 16), "conv_stride": (40, 8), "conv_kernel": (80, 8)}
    config = HubertConfig(num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, **convolutions, **LAYERS)
    HubertModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=16_000).save_pretrained(folder)
    return folder


def whisper(folder: Path) -> Path:
    """An encoder-decoder; its encoder is used, without the decoder."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    config = WhisperConfig(
        vocab_size=40, num_mel_bins=16, d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=100,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16, chunk_length=2).save_pretrained(folder)
    return folder


def videomae(folder: Path) -> Path:
    """A native video model."""
    from transformers import VideoMAEConfig, VideoMAEImageProcessor, VideoMAEModel

    VideoMAEModel(VideoMAEConfig(image_size=32, patch_size=16, num_frames=4, **LAYERS)).save_pretrained(folder)
    size = {"shortest_edge": 32}
    VideoMAEImageProcessor(size=size, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
