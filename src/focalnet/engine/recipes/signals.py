"""Sounds, speech and films: synthetic ones, fine-tuning, and what the papers trained with."""

from focalnet.engine.recipes.base import FEW, Recipe, released


def sound_scenes(model: str) -> Recipe:
    """Synthetic sounds, made on the fly, on a laptop."""
    return Recipe(
        name="sound_scenes",
        tasks=("sound",),
        summary="Eight synthetic sounds under a hum, made on the fly, with no download.",
        command="focalnet train --task sound",
        cost="about 3 minutes on 2 CPU cores",
        result="top-1 1.0 (three seeds, docs/log.md)",
        task={"seconds": 0.5, "size": 64, "augment": "none"},
        train={"epochs": 3, "batch_size": 32, "lr": 2e-3, "min_lr": 1e-5, "warmup_epochs": 0.3, "ema": 0.95,
               "clip_grad": 5.0, "workers": 1},
    )  # fmt: skip


def finetune_sound(model: str) -> Recipe:
    """A folder of sounds, from released weights of images."""
    return Recipe(
        name="finetune_sound",
        tasks=("sound",),
        summary="Your own folder of sounds, from released weights: spectrograms are images.",
        command="focalnet train --task sound --data sounds/ --model sound_focalnet_tiny_srf",
        cost="minutes to an hour on one GPU for some thousand sounds",
        result="depends on the sounds",
        task={"weights": released(model)},
        train={"epochs": 30, "batch_size": 32, "lr": 1e-4, "min_lr": 1e-6, "warmup_epochs": 3, **FEW},
    )


def esc50(model: str) -> Recipe:
    """ESC-50 (Della Libera et al. 2024, SpeechBrain's recipe)."""
    return Recipe(
        name="esc50",
        tasks=("sound",),
        summary="The authors' schedule on ESC-50: 100 epochs on folds 1 to 3, from ImageNet-1K weights.",
        command=f"focalnet train --task sound --recipe esc50 --model {model} --data ESC-50/",
        cost="100 epochs of 1,200 clips: an hour on one GPU",
        result="accuracy 77.4 on fold 5 (paper)",
        task={"weights": released(model), "seconds": 5.0, "scale": 1.0, "label_smoothing": 0.0, "augment": "drop"},
        train={"epochs": 100, "batch_size": 16, "lr": 3e-5, "min_lr": 3e-5, "warmup_epochs": 100, "weight_decay": 2e-6,
               "clip_grad": 0.0, "workers": 4},
    )  # fmt: skip


def moving_digits(model: str) -> Recipe:
    """Films of moving digits, made on the fly, on a laptop."""
    return Recipe(
        name="moving_digits",
        tasks=("video",),
        summary="Real handwritten digits that move in one of eight directions, made on the fly, with no download.",
        command="focalnet train --task video",
        cost="about 4 minutes of one CPU core",
        result="top-1 1.00 (three seeds, docs/video.md)",
        task={"frames": 6, "image_size": 16, "augment": "none", "drop_path": 0.0, "label_smoothing": 0.0,
              "temporal_gates": "open"},
        train={"epochs": 3, "batch_size": 32, "lr": 2e-3, "min_lr": 1e-5, "warmup_epochs": 0.3, "ema": 0.98,
               "clip_grad": 1.0, "workers": 1},
    )  # fmt: skip


def finetune_video(model: str) -> Recipe:
    """A folder of films, from released weights of images."""
    return Recipe(
        name="finetune_video",
        tasks=("video",),
        summary="Your own folder of films, the network from released weights of images.",
        command="focalnet train --task video --data films/ --model video_focalnet_tiny",
        cost="an hour on one GPU for some thousand films",
        result="depends on the films",
        task={"weights": released(model), "augment": "light", "drop_path": 0.1},
        train={"epochs": 30, "batch_size": 8, "lr": 1e-4, "min_lr": 1e-6, "warmup_epochs": 3, **FEW},
    )


def kinetics400(model: str) -> Recipe:
    """Kinetics-400, 120 epochs (Video-FocalNets' configs and scripts)."""
    small = "small" in model
    batch, drop = (64 if small else 32), 0.2 if "tiny" in model else 0.3 if small else 0.5
    return Recipe(
        name="kinetics400",
        tasks=("video",),
        summary="The authors' 120 epochs on Kinetics-400, from ImageNet-1K weights.",
        command=f"torchrun --nproc-per-node {batch // 8} -m focalnet train --task video --recipe kinetics400 "
        f"--model {model} --data kinetics/",
        cost="120 epochs of 240 thousand films: days on 8 GPUs",
        result="top-1 79.8, 81.4 and 83.6 of tiny, small and base (authors' repository)",
        task={"weights": released(model), "augment": "kinetics", "mixing": (0.8, 1.0), "drop_path": drop,
              "label_smoothing": 0.1},
        train={"epochs": 120, "batch_size": batch, "optimizer": "sgd", "lr": 0.1 * batch / 512,
               "min_lr": 0.001 * batch / 512, "warmup_epochs": 20, "weight_decay": 1e-4, "clip_grad": 5.0,
               "workers": 8},
    )  # fmt: skip


def small_codec(model: str) -> Recipe:
    """A small codec of sentences that espeak-ng speaks, or of anybody's speech, on a laptop."""
    return Recipe(
        name="small_codec",
        tasks=("codec",),
        summary="A small codec from random weights; without --data, of sentences spoken by espeak-ng.",
        command="focalnet train --task codec",
        cost="about 400 seconds of one CPU core",
        result="STOI 0.73 and a feature error of 0.10 after 5 of the 8 epochs (one seed, docs/log.md)",
        task={"stage": "both", "seconds": 2.0, "decoder_lr": 1e-3, "discriminator_share": 1 / 32},
        train={"epochs": 8, "batch_size": 8, "least_steps": 20, "least_total": 400, "lr": 3e-3, "min_lr": 1e-5,
               "warmup_epochs": 0.5, "weight_decay": 0.01, "clip_grad": 5.0, "train_sample": 0, "workers": 1,
               "optimizer_options": {"betas": (0.9, 0.98)}},
    )  # fmt: skip


def codec_features(model: str) -> Recipe:
    """Tokens of FocalCodec (Della Libera et al. 2025, SpeechBrain's recipe), on the features of released weights."""
    return Recipe(
        name="codec_features",
        tasks=("codec",),
        summary="The authors' quantizer on LibriTTS; a cosine is in the place of NewBob.",
        command=f"focalnet train --task codec --recipe codec_features --model {model} --weights codec/ --data speech/",
        cost="100 epochs of 960 hours of speech: days on one GPU",
        result="dWER 2.18, 3.30 and 7.94 at 50, 25 and 12.5 Hz, with Whisper (paper)",
        task={"stage": "features", "seconds": 10.0},
        train={"epochs": 100, "batch_size": 16, "lr": 5e-4, "min_lr": 5e-6, "warmup_epochs": 0.0, "weight_decay": 0.01,
               "clip_grad": 5.0, "optimizer_options": {"betas": (0.9, 0.98), "decay_all": True}, "workers": 4},
    )  # fmt: skip


def codec_decoder(model: str) -> Recipe:
    """The decoder of FocalCodec (Della Libera et al. 2025, SpeechBrain's recipe), on released weights' features."""
    return Recipe(
        name="codec_decoder",
        tasks=("codec",),
        summary="The authors' decoder on LibriTTS, against HiFi-GAN's discriminators.",
        command=f"focalnet train --task codec --recipe codec_decoder --model {model} --weights codec/ --data speech/",
        cost="100 epochs of 100 hours of speech: days on one GPU",
        result="UTMOS 4.05, 4.14 and 4.22 at 50, 25 and 12.5 Hz, with the quantizer (paper)",
        task={"stage": "decoder", "seconds": 10.0, "segment": 7040, "discriminator_share": 1.0},
        train={"epochs": 100, "batch_size": 16, "lr": 2e-4, "min_lr": 0.0, "schedule": "exponential",
               "warmup_epochs": 0.0, "weight_decay": 0.01, "clip_grad": 0.0, "workers": 4},
    )  # fmt: skip
