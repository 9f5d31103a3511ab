"""Models into a folder or onto the Hugging Face hub, with a card that says what they are and what they achieved."""

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from focalnet.errors import UserError
from focalnet.models.create import create_model
from focalnet.models.registry import get_family
from focalnet.weights.card import Evaluation, model_card
from focalnet.weights.files import first_line, replacing, write_state_dict


def save_pretrained(model: nn.Module | str | Path, folder: str | Path, *, evaluation: Evaluation | None = None) -> Path:
    """Write a model folder: `config.json`, `model.safetensors`, a model card. `create_model(weights=folder)` reads it.

    Args:
        model: made by `create_model` or `create_backbone`; or a run folder, whose best weights are written.
        folder: made where needed; the three files in it are replaced.
        evaluation: metrics for the model card; of a run folder they are known.

    Returns:
        the folder.

    Raises:
        UserError: the model has no spec, the run folder no weights, or the disk is full or read-only.
    """
    return _save(model, Path(folder), Path(folder).name, evaluation)


def push_to_hub(
    model: nn.Module | str | Path,
    repo: str,
    *,
    evaluation: Evaluation | None = None,
    private: bool = False,
    message: str = "Upload FocalNet",
    token: str | None = None,
) -> str:
    """Publish a model on the Hugging Face hub, with its model card.

    Args:
        model: made by `create_model` or `create_backbone`; or a run folder, whose best weights are published.
        repo: "organisation/name"; made where needed.
        evaluation: metrics for the model card; of a run folder they are known.
        private: whether a new repository is private.
        message: of the commit.
        token: of the hub; without it, the one of `hf auth login`.

    Returns:
        the address of the repository.

    Raises:
        UserError: the model has no spec, the run folder no weights, or the hub refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        _save(model, Path(folder), repo, evaluation)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
        except Exception as error:  # the hub and its http client have many
            raise UserError(
                f"{repo} could not be published ({first_line(error)}); check the name, the connection and "
                "`hf auth login`."
            ) from error
    return f"https://huggingface.co/{repo}"


def _save(model: Any, folder: Path, address: str, evaluation: Evaluation | None) -> Path:
    if not isinstance(model, nn.Module):
        evaluation = evaluation or Evaluation.of_run(model)
        model = create_model(weights=model)
    spec = getattr(model, "spec", None)
    if spec is None:
        raise UserError("the model does not say what it is; make it with create_model or create_backbone.")
    write_state_dict(folder / "model.safetensors", model.state_dict())
    family = get_family(spec.head)
    card = model_card(
        spec, address, title=family.title, purpose=family.purpose, pipeline=family.pipeline, outputs=family.outputs,
        evaluation=evaluation,
    )  # fmt: skip
    for name, text in (("config.json", spec.to_json()), ("README.md", card)):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder
